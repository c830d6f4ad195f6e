#!/bin/sh
# Serves in the folder that it is started in, for other machines too, so under a token: COLORIZATION_TOKEN, or a new one,
# which is printed. Arguments are those of `colorization serve`.
set -eu
mkdir -p outputs
if ! [ -w outputs ]; then
  echo "error: $(pwd)/outputs cannot be written by user $(id -u); chown the folder that is mounted there" >&2
  exit 2
fi
exec colorization serve --host 0.0.0.0 --port "${PORT:-5000}" "$@"
