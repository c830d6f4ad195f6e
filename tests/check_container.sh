#!/bin/sh
# Lints the Dockerfile and runs its steps without Docker: the same scripts, on what the build would get, in a clean folder.
# Called by `make container`; VENV_BIN is the bin folder of the development environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$root"
"$VENV_BIN/hadolint" Dockerfile
"$VENV_BIN/python" - <<'PYTHON'
import yaml

services = yaml.safe_load(open("compose.yaml"))["services"]
assert set(services) == {"colorization", "tensorboard"} and services["tensorboard"]["profiles"] == ["tensorboard"]
assert "USER 1000" in open("Dockerfile").read()
PYTHON

# What the build gets: the files of the project but those of .dockerignore.
mkdir "$work/source" "$work/workspace" "$work/workspace/data"
git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ -e "$f" ] && printf "%s\0" "$f"; done' sh |
  tar --null --files-from - --create | tar --extract --directory "$work/source"
while read -r ignored; do (cd "$work/source" && rm -rf -- $ignored); done <.dockerignore

# The Node stage, which gets the web app and its script alone.
if command -v npm >/dev/null; then
  mkdir -p "$work/web/docker"
  cp -R "$work/source/frontend" "$work/web/"
  cp "$work/source/docker/build-web.sh" "$work/web/docker/"
  "$work/web/docker/build-web.sh" "$work/web"
  cp -R "$work/web/src/colorization/web" "$work/source/src/colorization/"
else
  echo "container: without the web app, there is no Node.js"
fi

"$work/source/docker/install.sh" "$work/source" "$work/environment"
cp "$work"/source/docker/entrypoint.sh "$work"/source/docker/healthcheck.sh "$work/environment/bin/"
rm -r "$work/source"
PATH=$work/environment/bin:$PATH
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export PATH PORT
unset COLORIZATION_TOKEN COLORIZATION_DATABASE COLORIZATION_DATA PYTHONPATH
cd "$work/workspace"
entrypoint.sh >"$work/log" 2>&1 &
server=$!
for _ in $(seq 120); do
  healthcheck.sh 2>/dev/null && break
  kill -0 "$server" 2>/dev/null || break
  sleep 1
done
healthcheck.sh || { cat "$work/log"; exit 1; }
python3 - "$work/log" "$work/web" <<'PYTHON'
import os
import sys
import urllib.error
import urllib.request

token = next(line.split()[1] for line in open(sys.argv[1]) if line.startswith("token"))
asked = urllib.request.Request(f"http://127.0.0.1:{os.environ['PORT']}/api/openapi.json")
try:
    urllib.request.urlopen(asked)
    sys.exit("no token was needed")
except urllib.error.HTTPError as error:
    assert error.code == 401, error
asked.add_header("Authorization", f"Bearer {token}")
assert urllib.request.urlopen(asked).status == 200
page = urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/history")
built = os.path.exists(sys.argv[2])
assert page.headers.get_content_type() == ("text/html" if built else "text/plain"), page.headers
PYTHON
kill -TERM "$server"
wait "$server" || { echo "ended with $?"; cat "$work/log"; exit 1; }
server=
test -e outputs/server/colorization.db
if healthcheck.sh 2>/dev/null; then echo "still there after SIGTERM"; exit 1; fi
echo "container: 1 passed, 0 failed"
