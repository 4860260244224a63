#!/bin/sh
# Makes what compose.yaml needs beside itself, in secrets: passwords, settings, a certificate. What is there already stays.
#   sh init.sh ADDRESS     the IP address at which clients reach this machine
set -eu
address=${1:-}
case $address in
'' | *[!0-9a-fA-F.:]*)
    echo "usage: sh init.sh ADDRESS, the IP address at which clients reach this machine" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")"
umask 077 # the folder is for its owner; the files in it must be readable inside the containers, whose user is another
mkdir -p secrets
for name in root-password registry-password; do
    [ -s "secrets/$name" ] || openssl rand -hex 32 >"secrets/$name"
done
if [ ! -s secrets/sluice.yaml ]; then
    cat >secrets/sluice.yaml <<SETTINGS
# Of all nodes and the gateway; what differs is in compose.yaml.
store: "mongodb://sluice:$(cat secrets/registry-password)@10.89.0.2/sluice?authSource=admin"
node:
  announce: ["$address"]
  trusted-proxies: [10.89.0.3]
  publish-url: ":443"
  play-url: ":5443"
gateway:
  certificate: /run/secrets/certificate
  key: /run/secrets/key
SETTINGS
fi
if [ ! -s secrets/tls.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 397 -subj "/CN=$address" \
        -addext "subjectAltName=IP:$address,DNS:localhost" -keyout secrets/tls.key -out secrets/tls.pem 2>/dev/null
fi
chmod 0444 secrets/*
echo "ready: docker compose up -d --build, then https://$address/live/ and https://$address:5443/live/player.html"
