#!/bin/sh
# Makes what the mock of Amazon SNS shows in the tests: an authority that nobody trusts and a certificate for SNS's name. The key
# protects nothing; the authority's key is thrown away.
set -eu
cd "$(dirname "$0")"
new_key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -outform "$1" -out "$2"; }
new_key PEM ca.key
openssl req -x509 -new -key ca.key -subj "/CN=Bellwire test authority" -days 36500 -sha256 \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -outform PEM -out ca.pem
new_key PEM sns.pem
openssl req -new -key sns.pem -subj "/CN=sns" -out sns.csr
printf '%s\n' "subjectAltName=DNS:sns.us-west-2.amazonaws.com" "basicConstraints=CA:FALSE" "extendedKeyUsage=serverAuth" > ext
openssl x509 -req -in sns.csr -CA ca.pem -CAkey ca.key -days 36500 -sha256 -extfile ext -outform DER -out sns.der
openssl x509 -in ca.pem -outform DER -out ca.der
openssl pkcs8 -topk8 -nocrypt -in sns.pem -outform DER -out sns-key.der
rm -f ./*.pem ./*.key ./*.srl ./*.csr ext
