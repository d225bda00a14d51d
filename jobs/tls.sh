# shellcheck shell=bash
# Sourced by scripts that start a scheduler which other machines reach: whoever can talk to one can run code as
# you, so both sides show a certificate that is made for this run, in a folder that only you can read.
BESIDE=${BESIDE:-$CHECKPOINT} # as in resumable.sh
mkdir -p "$(dirname "$BESIDE")" || exit 1
TLS=$(umask 077 && mkdir -p "$BESIDE.tls" && mktemp -d "$BESIDE.tls/XXXXXX") || exit 1
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$TLS"' EXIT
(umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=dgmm \
  -keyout "$TLS/key.pem" -out "$TLS/cert.pem" 2>"$TLS/openssl.log") || {
  echo "no certificate for this run: $(cat "$TLS/openssl.log")" >&2
  exit 1
}
export TLS_OPTIONS=(--protocol tls --tls-ca-file "$TLS/cert.pem" --tls-cert "$TLS/cert.pem" --tls-key "$TLS/key.pem")
