"""The REST API: what the commands do, over HTTP. Read ``app.py`` first; ``configs/serve.yaml`` has every setting."""
