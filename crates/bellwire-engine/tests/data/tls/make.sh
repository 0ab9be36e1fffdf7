#!/bin/sh
# Makes the certificates of the transport's tests: an authority that nobody trusts, a receiver's certificate that lasts, and
# one that has expired. The keys protect nothing; the authority's key is thrown away.
set -eu
cd "$(dirname "$0")"
new_key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -outform "$1" -out "$2"; }
new_key PEM ca.key
openssl req -x509 -new -key ca.key -subj "/CN=Bellwire test authority" -days 36500 -sha256 \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -outform PEM -out ca.pem
new_key PEM receiver.pem
openssl req -new -key receiver.pem -subj "/CN=receiver" -out receiver.csr
printf '%s\n' "subjectAltName=DNS:receiver.test.example,IP:127.0.0.1" "basicConstraints=CA:FALSE" "extendedKeyUsage=serverAuth" > ext
openssl x509 -req -in receiver.csr -CA ca.pem -CAkey ca.key -days 36500 -sha256 -extfile ext -outform DER -out receiver.der
: > index
printf '%s\n' "[ca]" "default_ca=d" "[d]" "database=index" "new_certs_dir=." "rand_serial=yes" "policy=p" "default_md=sha256" \
  "[p]" "commonName=supplied" > ca.conf
openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in receiver.csr -extfile ext -notext \
  -startdate 20200101000000Z -enddate 20200201000000Z -out expired.pem
openssl x509 -in expired.pem -outform DER -out expired.der
openssl x509 -in ca.pem -outform DER -out ca.der
openssl pkcs8 -topk8 -nocrypt -in receiver.pem -outform DER -out receiver-key.der
new_key PEM other.key
openssl req -x509 -new -key other.key -subj "/CN=Another authority" -days 36500 -sha256 \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -outform DER -out other-ca.der
rm -f ./*.pem ./*.key ./*.srl ./*.csr ext index* ca.conf
