package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"time"
)

// listenECDSA listens for TLS with an ECDSA certificate, the cheapest kind.
func listenECDSA() (net.Listener, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return listenTLS(key)
}

// listenRSA listens for TLS with an RSA certificate, the most common kind, which costs
// the server several times as much.
func listenRSA() (net.Listener, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return listenTLS(key)
}

func listenTLS(key crypto.Signer) (net.Listener, error) {
	certificate, err := selfSigned(key)
	if err != nil {
		return nil, err
	}
	return tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
}

// selfSigned returns a certificate for the loopback address.
func selfSigned(key crypto.Signer) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// clientTLS is the TLS configuration of all clients. They do not verify the server's
// certificate, which is self-signed.
func clientTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
