// The program behind every container of a test's node that is not etcd. It does what its name
// says: init containers end at once, etcd-readyz answers the kubelet's probes for as long as
// etcd takes connections, and everything else, the pause container too, waits until it is told
// to end.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "setup", "etcd-ensure-env-vars", "etcd-resources-copy", "wait-for-host-port":
		return
	case "etcd-readyz":
		go func() { log.Fatal(serve()) }()
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	<-asked
}

// serve answers on the port that the manifest's probes ask, with a certificate of its own making:
// the kubelet does not check it.
func serve() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: ":9980",
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, err := net.DialTimeout("tcp", "127.0.0.1:2379", time.Second)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			conn.Close()
		}),
	}
	return server.ListenAndServeTLS("", "")
}
