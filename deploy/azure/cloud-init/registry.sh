#!/bin/sh
# Makes a machine that has just booted the registry: MongoDB with a password and a certificate that are made here, its data on the disk
# beside. What the others need, it puts into the vault: the URL (secret registry-url) and the authority of its certificate (registry-ca).
#
# What it is told, in /etc/default/sluice-registry: VAULT, address of the vault with a slash; CLIENT, client id of the machine's identity,
# which may write there; ADDRESS, the private address to listen on.
set -eu
umask 077

. /etc/default/sluice-registry
disk=/dev/disk/azure/scsi1/lun0
data=/var/lib/mongodb
tls=/etc/mongodb
header=$(mktemp)
trap 'rm -f "$header"' EXIT

say() { echo "sluice-registry: $*" >&2; }

again() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 360 ]; then # half an hour
            say "gave up: $1"
            return 1
        fi
        sleep 5
    done
}

field() { python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

authorize() {
    token=$(curl -fsS --noproxy '*' -m 10 -H 'Metadata: true' \
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&client_id=$CLIENT&resource=https://vault.azure.net" | field access_token) || return 1
    printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$token" >"$header"
}

# keep NAME: standard input becomes a secret.
keep() {
    python3 -c 'import json, sys; json.dump({"value": sys.stdin.read()}, sys.stdout)' >"$header.body"
    again put "$1"
    rm -f "$header.body"
}

put() { authorize && curl -fsS -m 30 -o /dev/null -X PUT -H "@$header" --data-binary "@$header.body" "${VAULT}secrets/$1?api-version=7.4"; }

mount_data() {
    again test -b "$disk" # it is attached after the first boot began
    if ! blkid "$disk" >/dev/null; then
        mkfs.xfs -q "$disk"
    fi
    mkdir -p "$data"
    if ! grep -q " $data " /etc/fstab; then
        echo "UUID=$(blkid -s UUID -o value "$disk") $data xfs defaults,noatime,nofail 0 2" >>/etc/fstab
    fi
    mountpoint -q "$data" || mount "$data"
}

install_mongodb() {
    keyring=/usr/share/keyrings/mongodb-server-8.0.asc
    again curl -fsS -m 60 -o "$keyring" https://pgp.mongodb.com/server-8.0.asc
    chmod 0644 "$keyring"
    (
        umask 022
        . /etc/os-release
        echo "deb [signed-by=$keyring] https://repo.mongodb.org/apt/ubuntu $VERSION_CODENAME/mongodb-org/8.0 multiverse" \
            >/etc/apt/sources.list.d/mongodb-org-8.0.list
    )
    again apt-get -qq update
    again env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y mongodb-org
    chown -R mongodb:mongodb "$data"
}

# An authority for this one certificate: whoever has its public half knows the registry from all others.
certificate() {
    mkdir -p "$tls"
    if [ ! -e "$tls/server.pem" ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=sluice registry authority" \
            -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=sluice registry" \
            -keyout "$tls/server.key" -out "$tls/server.csr" 2>/dev/null
        printf 'subjectAltName=IP:%s,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' "$ADDRESS" >"$tls/server.ext"
        openssl x509 -req -days 3650 -in "$tls/server.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial \
            -extfile "$tls/server.ext" -out "$tls/server.crt" 2>/dev/null
        cat "$tls/server.crt" "$tls/server.key" >"$tls/server.pem"
        rm -f "$tls/ca.key" "$tls/server.csr" "$tls/server.ext" "$tls/server.crt" "$tls/server.key" # nobody can make another
        openssl rand -base64 512 >"$tls/members.key"
    fi
    chmod 0755 "$tls"
    chmod 0644 "$tls/ca.pem"
    chown mongodb:mongodb "$tls/server.pem" "$tls/members.key"
    chmod 0400 "$tls/server.pem" "$tls/members.key"
}

configure() {
    (
        umask 022
        cat >/etc/mongod.conf <<CONF
# Written by sluice-registry.
storage:
  dbPath: $data
systemLog:
  destination: file
  path: /var/log/mongodb/mongod.log
  logAppend: true
net:
  port: 27017
  bindIp: 127.0.0.1,$ADDRESS
  tls:
    mode: requireTLS
    certificateKeyFile: $tls/server.pem
    CAFile: $tls/ca.pem
    allowConnectionsWithoutCertificates: true
security:
  authorization: enabled
  keyFile: $tls/members.key
replication:
  replSetName: sluice
CONF
    )
    systemctl enable --quiet mongod
    systemctl restart mongod
}

# Reads a program from standard input: command lines can be read by everybody on the machine.
shell() { mongosh --quiet --tls --tlsCAFile "$tls/ca.pem" --host 127.0.0.1 >/dev/null; }

initiate() {
    shell <<PROGRAM
if (!db.hello().setName) rs.initiate({_id: "sluice", members: [{_id: 0, host: "$ADDRESS:27017"}]})
if (!db.hello().isWritablePrimary) quit(1)
PROGRAM
}

# The first user may be made from this machine without being one; then nobody can. Who is there already, logs in.
user() {
    shell <<PROGRAM
const admin = db.getSiblingDB("admin")
try { admin.auth("sluice", "$1") } catch (e) { admin.createUser({user: "sluice", pwd: "$1", roles: [{role: "readWrite", db: "sluice"}]}) }
PROGRAM
}

users() {
    [ ! -e "$data/.sluice" ] || return 0 # a disk that was there before: the vault has its password
    [ -s "$tls/password" ] || openssl rand -hex 32 >"$tls/password"
    password=$(cat "$tls/password")
    again initiate
    again user "$password"
    printf 'mongodb://sluice:%s@%s:27017/sluice?replicaSet=sluice&authSource=admin&tls=true&tlsCAFile=/etc/sluice/registry-ca.pem' "$password" "$ADDRESS" | keep registry-url
    touch "$data/.sluice"
    rm -f "$tls/password"
}

mount_data
install_mongodb
certificate
configure
keep registry-ca <"$tls/ca.pem"
users
say "ready at $ADDRESS"
