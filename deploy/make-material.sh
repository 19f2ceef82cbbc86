#!/bin/sh
# Makes what `docker compose up` needs to show a bound token: certificates, a signing key, a token.
#   make-material.sh FOLDER [OWNER]
# Everything is for trying out only: the signing key lies beside its token.
set -eu
folder=${1:?the folder to write to}
owner=${2:-}
mkdir -p "$folder"
cd "$folder"
umask 077

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# authority NAME
authority() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -x509 -new -key "$1.key" -sha256 -days 30 -subj "/CN=$1" -out "$1.pem" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}

# leaf NAME AUTHORITY USAGE [ALTERNATIVE NAMES]
leaf() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.sec1"
  openssl pkcs8 -topk8 -nocrypt -in "$1.sec1" -out "$1.key"
  rm "$1.sec1"
  {
    echo "basicConstraints=critical,CA:FALSE"
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=$3"
    [ -z "${4:-}" ] || echo "subjectAltName=$4"
  } >"$1.ext"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -sha256 -days 30 \
    -extfile "$1.ext" -out "$1.pem"
  rm "$1.ext" "$1.csr"
}

if [ ! -f made ]; then
  authority servers-ca
  authority clients-ca
  leaf server servers-ca serverAuth DNS:api.bank.example,DNS:localhost,IP:127.0.0.1
  leaf tpp-a clients-ca clientAuth
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out issuer.key
  openssl pkey -in issuer.key -pubout -out issuer.pub
  touch made
fi

# The token is good for a day, and made anew each time.
now=$(date +%s)
thumbprint=$(openssl x509 -in tpp-a.pem -outform DER | openssl dgst -sha256 -binary | base64url)
header='{"alg":"PS256","typ":"at+jwt"}'
claims="{\"iss\":\"https://idp.bank.example\",\"aud\":\"https://api.bank.example\",\"sub\":\"tpp-a\",\"client_id\":\"tpp-a\",\"iat\":$now,\"exp\":$((now + 86400)),\"scope\":\"accounts\",\"cnf\":{\"x5t#S256\":\"$thumbprint\"}}"
signed="$(printf %s "$header" | base64url).$(printf %s "$claims" | base64url)"
signature=$(printf %s "$signed" |
  openssl dgst -sha256 -sign issuer.key -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest | base64url)
printf 'authorization: Bearer %s.%s\n' "$signed" "$signature" >token.hdr

[ -z "$owner" ] || chown -R "$owner" .
