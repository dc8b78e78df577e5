package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// identity is a certificate for 127.0.0.1, signed by a private authority.
type identity struct {
	roots *x509.CertPool
	pem   string // file with the certificate and its key

	client func(serial int64) tls.Certificate // a client's certificate of the same authority
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	authority := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "private authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "peer"},
		NotBefore:    authority.NotBefore,
		NotAfter:     authority.NotAfter,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	check(err)
	authority, err = x509.ParseCertificate(authorityDER)
	check(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, authorityKey)
	check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)

	id := identity{roots: x509.NewCertPool(), pem: filepath.Join(t.TempDir(), "peer.pem")}
	id.client = func(serial int64) tls.Certificate {
		template := *leaf
		template.SerialNumber = big.NewInt(serial)
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		der, err := x509.CreateCertificate(rand.Reader, &template, authority, &key.PublicKey, authorityKey)
		check(err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	id.roots.AddCert(authority)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	check(os.WriteFile(id.pem, text, 0o600))
	return id
}

// serveTLS starts an echo server in this process and returns its address.
func serveTLS(t *testing.T, id identity) string {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(id.pem, id.pem)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(echo), ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener) //nolint:errcheck // it ends with the listener
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// withTLS returns an option that dials with config.
func withTLS(t *testing.T, config *tls.Config) resock.Option {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return resock.WithDialOptions(&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
}

// TestTLS: a client connects if it trusts the private authority, and fails if it does
// not, or if it expects another host.
func TestTLS(t *testing.T) {
	id := newIdentity(t)
	servers := map[string]func(t *testing.T) (address string){
		"go": func(t *testing.T) string { return serveTLS(t, id) },
	}
	for _, k := range kinds {
		servers[k.name] = func(t *testing.T) string {
			upstream := address(t)
			startServer(t, "echo", upstream)
			return k.start(t, settings{Upstream: upstream, PEM: id.pem}).settings.Address
		}
	}
	for name, serve := range servers {
		t.Run(name, func(t *testing.T) {
			url := "wss://" + serve(t) + "/"
			t.Run("trusted", func(t *testing.T) {
				c := run(t, url, withTLS(t, &tls.Config{RootCAs: id.roots}))
				next[resock.OpenEvent](c)
				c.echoes()
				c.Suspend()
				if got := next[resock.CloseEvent](c); !got.Clean {
					t.Errorf("got %+v, want a clean close", got)
				}
				c.Resume()
				next[resock.OpenEvent](c)
				c.echoText("again")
			})
			t.Run("unknown authority", func(t *testing.T) {
				c := run(t, url, withTLS(t, &tls.Config{RootCAs: x509.NewCertPool()}))
				got := next[resock.FailEvent](c)
				var unknown x509.UnknownAuthorityError
				if dialError(t, got).Phase != resock.PhaseTLS || got.Phase != resock.PhaseTLS || !errors.As(got.Err, &unknown) {
					t.Errorf("got %+v, want an unknown authority", got)
				}
				if got.Next != resock.StateWaiting || got.RetryIn < 50*time.Millisecond {
					t.Errorf("next is %v in %v, want a slow retry", got.Next, got.RetryIn)
				}
			})
			t.Run("another host", func(t *testing.T) {
				c := run(t, url, withTLS(t, &tls.Config{RootCAs: id.roots, ServerName: "another.example"}))
				got := next[resock.FailEvent](c)
				var hostname x509.HostnameError
				if dialError(t, got).Phase != resock.PhaseTLS || !errors.As(got.Err, &hostname) {
					t.Errorf("got %+v, want the wrong host", got)
				}
			})
		})
	}
}

// TestClientCertificate: a certificate that is renewed while the program runs is shown by
// the next attempt, and a server that refuses the old one is retried slowly until then.
func TestClientCertificate(t *testing.T) {
	id := newIdentity(t)
	certificate, err := tls.LoadX509KeyPair(id.pem, id.pem)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			var revoked atomic.Int64 // serial numbers up to this one
			shown := make(chan int64, 100)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				shown <- r.TLS.PeerCertificates[0].SerialNumber.Int64()
				echo(w, r)
			}))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = &tls.Config{
				Certificates: []tls.Certificate{certificate}, MaxVersion: version,
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: id.roots,
				VerifyConnection: func(state tls.ConnectionState) error {
					if state.PeerCertificates[0].SerialNumber.Int64() <= revoked.Load() {
						return errors.New("revoked")
					}
					return nil
				},
			}
			server.StartTLS()
			t.Cleanup(server.Close)

			var own atomic.Pointer[tls.Certificate]
			renew := func(serial int64) {
				renewed := id.client(serial)
				own.Store(&renewed)
			}
			renew(10)
			c := run(t, "wss"+strings.TrimPrefix(server.URL, "https"), withTLS(t, &tls.Config{
				RootCAs:              id.roots,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.Load(), nil },
			}))
			next[resock.OpenEvent](c)
			c.echoText("with the first")
			if serial := <-shown; serial != 10 {
				t.Errorf("certificate %d was shown", serial)
			}
			revoked.Store(10)
			c.Reconnect()
			next[resock.CloseEvent](c)
			if got := next[resock.FailEvent](c); got.Phase != resock.PhaseTLS || got.RetryIn < 50*time.Millisecond {
				t.Errorf("got %+v, want a refused certificate and a slow retry", got)
			}
			renew(11)
			until[resock.OpenEvent](c)
			c.echoText("with the second")
			if serial := <-shown; serial != 11 {
				t.Errorf("certificate %d was shown", serial)
			}
		})
	}
}
