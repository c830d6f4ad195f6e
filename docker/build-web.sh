#!/bin/sh
# Builds the web app of a checkout into its package: build-web.sh SOURCE
set -eu
cd "$1/frontend"
npm ci --no-fund
npm run build
