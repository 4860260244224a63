#!/bin/sh
# Makes a machine that has just booted a part of the cluster: gets the package, compares its checksum, installs it, gets the registry's
# URL, and joins. It asks nothing, may be repeated, and ends with a status other than 0 and a line that says why when it could not.
#
# What it is told, in /etc/default/sluice-boot:
#   ROLE             origin, edge or gateway
#   PACKAGE_URL      where the Debian package is, PACKAGE_SHA256 its checksum
#   STORE_SECRET     the vault's secret with the registry's URL; or STORE_FILE, a file with it
#   CA_SECRET        the vault's secret with the authority of the registry's certificate; empty: a public one
#   CERTIFICATE_SECRET  the vault's secret with a gateway's certificate and key, PEM
#   CLIENT           client id of the machine's identity, by which vault and storage are read; empty: they need none
#   PUBLIC_ADDRESS, REGION, TRUSTED_PROXIES, CLOUD_NOTICE  as the flags of sluice join
#   SETTINGS         KEY=VALUE … for sluice join --set
#   SIGNAL           KEY=VALUE … of a gateway without doors beside the node, which tells the scaling signal; empty: none
#   WAIT             for how many seconds to try what depends on others [1800]
#   METADATA         the cloud's service for its machines [http://169.254.169.254]
set -eu
umask 077

. "${SLUICE_BOOT:-/etc/default/sluice-boot}"
METADATA=${METADATA:-http://169.254.169.254}
WAIT=${WAIT:-1800}
ROOT=${ROOT:-} # another root, for tests
etc=$ROOT/etc/sluice
work=$ROOT/var/cache/sluice
deadline=$(($(date +%s) + WAIT))
header=$work/header

say() { echo "sluice-boot: $*" >&2; }

trap 'rm -f "$header"' EXIT

# again COMMAND… until it works or the time is over: the vault, the rights to read it, and the registry may come later.
again() {
    told=
    until "$@"; do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            say "gave up: $*"
            return 1
        fi
        [ -n "$told" ] || say "not yet, trying again: $*"
        told=yes
        sleep "${PAUSE:-5}"
    done
}

# field NAME of the JSON object on standard input, as text.
field() { python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# authorize AUDIENCE writes the header that shows who this machine is. A file, since command lines can be read.
authorize() {
    : >"$header"
    [ -n "${CLIENT:-}" ] || return 0
    curl -fsS --noproxy '*' -m 10 -H 'Metadata: true' \
        "$METADATA/metadata/identity/oauth2/token?api-version=2018-02-01&client_id=$CLIENT&resource=$1" >"$work/token" || return 1
    token=$(field access_token <"$work/token") || return 1
    rm -f "$work/token"
    printf 'Authorization: Bearer %s\n' "$token" >"$header"
}

# get URL FILE AUDIENCE
get() {
    authorize "$3" &&
        curl -fsS -m 300 -H "@$header" -H 'x-ms-version: 2021-08-06' -o "$2" "$1"
}

# secret URL FILE
secret() {
    get "$1?api-version=7.4" "$2.json" https://vault.azure.net || return 1
    field value <"$2.json" >"$2.new" || return 1
    rm -f "$2.json"
    [ -s "$2.new" ] && mv "$2.new" "$2"
}

package() {
    if [ "$(cat "$work/installed" 2>/dev/null)" = "$PACKAGE_SHA256" ]; then
        return 0
    fi
    again get "$PACKAGE_URL" "$work/sluice.deb" https://storage.azure.com/
    if ! echo "$PACKAGE_SHA256  $work/sluice.deb" | sha256sum -c --quiet - >&2; then
        say "the package is not the one that was meant: its checksum is not $PACKAGE_SHA256"
        rm -f "$work/sluice.deb"
        return 1
    fi
    DEBIAN_FRONTEND=noninteractive dpkg -i "$work/sluice.deb" >&2
    rm -f "$work/sluice.deb"
    echo "$PACKAGE_SHA256" >"$work/installed"
}

secrets() {
    if [ -n "${STORE_SECRET:-}" ]; then
        STORE_FILE=$etc/registry-url
        again secret "$STORE_SECRET" "$STORE_FILE"
    fi
    if [ -n "${CA_SECRET:-}" ]; then
        again secret "$CA_SECRET" "$etc/registry-ca.pem"
        chmod 0644 "$etc/registry-ca.pem"
    fi
    if [ -n "${CERTIFICATE_SECRET:-}" ]; then
        again secret "$CERTIFICATE_SECRET" "$etc/gateway.pem"
        if getent group sluice >/dev/null && [ "$(id -u)" = 0 ]; then
            chgrp sluice "$etc/gateway.pem"
            chmod 0640 "$etc/gateway.pem"
        fi
        SETTINGS="gateway.certificate=/etc/sluice/gateway.pem gateway.key=/etc/sluice/gateway.pem ${SETTINGS:-}"
    fi
}

# join ROLE KEY=VALUE… FLAG…
join() {
    role=$1 settings=$2
    shift 2
    for kv in $settings; do
        set -- "$@" --set "$kv"
    done
    left=$((deadline - $(date +%s)))
    [ "$left" -gt 0 ] || left=1
    sluice join --store-file "$STORE_FILE" --role "$role" --wait "${left}s" "$@"
}

mkdir -p "$work" "$etc"
package
chmod 0750 "$etc"
secrets
if [ "$ROLE" = gateway ]; then
    join gateway "${SETTINGS:-}" ${REGION:+--region "$REGION"} ${TRUSTED_PROXIES:+--trusted-proxies "$TRUSTED_PROXIES"}
else
    join "$ROLE" "${SETTINGS:-}" ${REGION:+--region "$REGION"} ${TRUSTED_PROXIES:+--trusted-proxies "$TRUSTED_PROXIES"} \
        ${PUBLIC_ADDRESS:+--public-address "$PUBLIC_ADDRESS"} ${CLOUD_NOTICE:+--cloud-notice "$CLOUD_NOTICE"}
    if [ -n "${SIGNAL:-}" ]; then
        join gateway "gateway.publish= gateway.play= gateway.redirect= $SIGNAL"
    fi
fi
say "joined as $ROLE"
