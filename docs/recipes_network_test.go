package docs

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
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// snippet: proxy
// throughProxy returns a client that dials through an HTTP or SOCKS5 proxy, such as
// http://user:password@proxy.example.com:3128 or socks5://127.0.0.1:1080.
func throughProxy(server string, proxy *url.URL) (*resock.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = http.ProxyURL(proxy)
	return resock.New(server, resock.WithHTTPClient(&http.Client{Transport: transport}))
}

// end of snippet

// connectProxy returns the URL of a proxy that makes tunnels for a user, and counts them.
func connectProxy(t *testing.T, tunnels *atomic.Int32) *url.URL {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") == "" {
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		tunnels.Add(1)
		w.WriteHeader(http.StatusOK)
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer there.Close()
			_, _ = io.Copy(there, here)
		}()
		defer here.Close()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(proxy.Close)
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.UserPassword("user", "password")
	return at
}

func TestProxy(t *testing.T) {
	server := resocktest.NewServer(t)
	var tunnels atomic.Int32
	client, err := throughProxy(server.URL, connectProxy(t, &tunnels))
	start(t, client, err)
	conn := server.Accept()
	if err := client.Send(t.Context(), resock.MessageText, []byte("hello")); err != nil {
		t.Error(err)
	}
	expect(t, conn, "hello")
	if tunnels.Load() != 1 {
		t.Errorf("the proxy made %d tunnels, want 1", tunnels.Load())
	}
}

// snippet: mtls
// withCertificate returns a client that trusts the authority in caFile alone, and shows
// the certificate in certFile. That file is read for each connection, so that a renewed
// certificate needs no restart.
func withCertificate(server, caFile, certFile, keyFile string) (*resock.Client, error) {
	authority, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New(caFile + " has no certificate")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{
		RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			return &pair, err
		},
	}
	return resock.New(server, resock.WithHTTPClient(&http.Client{Transport: transport}))
}

// end of snippet

func TestMutualTLS(t *testing.T) {
	server := resocktest.NewTLSServer(t)
	shown := make(chan string, 10)
	server.TLS.ClientAuth = tls.RequireAnyClientCert
	server.TLS.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		cert, err := x509.ParseCertificate(raw[0])
		if err == nil {
			shown <- cert.Subject.CommonName
		}
		return err
	}
	folder := t.TempDir()
	caFile, certFile, keyFile := filepath.Join(folder, "ca.pem"), filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	writePEM(t, caFile, "CERTIFICATE", server.TLS.Certificates[0].Certificate[0])
	writeCertificate(t, "first", certFile, keyFile)
	client, err := withCertificate(server.URL, caFile, certFile, keyFile)
	start(t, client, err)
	server.Accept()
	if err := client.WaitOpen(t.Context()); err != nil { // Reconnect lets an attempt go on
		t.Fatal(err)
	}
	writeCertificate(t, "renewed", certFile, keyFile)
	client.Reconnect()
	server.Accept()
	for _, want := range []string{"first", "renewed"} {
		if got := <-shown; got != want {
			t.Errorf("the client showed the certificate %q, want %q", got, want)
		}
	}
	writePEM(t, caFile, "CERTIFICATE", anotherAuthority(t))
	stranger, err := withCertificate(server.URL, caFile, certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	events := stranger.Subscribe(t.Context())
	start(t, stranger, err)
	if fail, ok := (<-events).(resock.FailEvent); !ok || fail.Phase != resock.PhaseTLS {
		t.Errorf("a server of another authority was not refused: %+v", fail)
	}
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate writes a new certificate, signed by itself, and its key.
func writeCertificate(t *testing.T, name, certFile, keyFile string) {
	t.Helper()
	der, key := newCertificate(t, name)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", keyDER)
}

func anotherAuthority(t *testing.T) []byte {
	der, _ := newCertificate(t, "another authority")
	return der
}

func newCertificate(t *testing.T, name string) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}
