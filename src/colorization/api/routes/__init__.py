"""The routes, a blueprint a topic. They check, ask a service, and answer; they do no work themselves."""
