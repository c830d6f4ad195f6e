"""The REST API: the commands over HTTP. Read ``app.py`` first; ``configs/serve.yaml`` has every setting."""
