package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
)

// httpClient makes the upgrade requests. It is nil, the default, if no flag asks for
// another.
func (s *settings) httpClient() (*http.Client, error) {
	if s.proxy == "" && s.caFile == "" && s.certFile == "" && !s.insecure {
		return nil, nil
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if err := s.setProxy(transport); err != nil {
		return nil, err
	}
	config, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig = config
	return &http.Client{Transport: transport}, nil
}

func (s *settings) setProxy(transport *http.Transport) error {
	switch s.proxy {
	case "":
		return nil
	case "none":
		transport.Proxy = nil
		return nil
	}
	proxy, err := url.Parse(s.proxy)
	if err != nil || proxy.Host == "" {
		return errors.New("-proxy wants a URL such as http://proxy.example.com:3128") // what it got may have a password
	}
	switch proxy.Scheme {
	case "http", "https", "socks5", "socks5h":
		transport.Proxy = http.ProxyURL(proxy)
		return nil
	}
	return fmt.Errorf("-proxy: unknown scheme %q: must be http, https or socks5", proxy.Scheme)
}

func (s *settings) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: s.insecure}
	if s.caFile != "" {
		pem, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, fmt.Errorf("-cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-cacert: no certificate in %s", s.caFile)
		}
	}
	if s.certFile == "" {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0) // reconnects resume the TLS session
		return config, nil
	}
	if _, err := s.certificate(nil); err != nil { // now rather than in each attempt
		return nil, err
	}
	config.GetClientCertificate = s.certificate // a resumed session would not ask for it
	return config, nil
}

// certificate reads the client certificate, which may have been renewed.
func (s *settings) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	key := s.keyFile
	if key == "" {
		key = s.certFile
	}
	certificate, err := tls.LoadX509KeyPair(s.certFile, key)
	if err != nil {
		return nil, fmt.Errorf("-cert: %w", err)
	}
	return &certificate, nil
}
