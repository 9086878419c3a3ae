package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Names of the PEM files that makeCertificates writes.
const (
	caFile     = "ca.pem"
	serverFile = "server.pem" // the key and the chain: Kafka wants both in one file
	clientCert = "client.crt"
	clientKey  = "client.key"
)

// makeCertificates writes an authority, and certificates of it for a server and a
// client, to dir.
func makeCertificates(dir string) error {
	ca, caKey, caPEM, _, err := certificate("ca", nil, nil)
	if err != nil {
		return err
	}
	_, _, serverPEM, serverKeyPEM, err := certificate("server", ca, caKey)
	if err != nil {
		return err
	}
	_, _, clientPEM, clientKeyPEM, err := certificate("client", ca, caKey)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		caFile:     caPEM,
		serverFile: slices.Concat(serverKeyPEM, serverPEM, caPEM),
		clientCert: clientPEM,
		clientKey:  clientKeyPEM,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return fmt.Errorf("write the certificates: %w", err)
		}
	}
	return nil
}

// certificate makes one that the authority signs, or an authority when it is nil.
func certificate(name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (
	cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM []byte, err error,
) {
	fail := func(err error) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte, error) {
		return nil, nil, nil, nil, fmt.Errorf("make the certificate %s: %w", name, err)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fail(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return fail(err)
	}
	cert = &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(30 * 24 * time.Hour),
		BasicConstraintsValid: true,
	}
	if ca == nil {
		cert.IsCA = true
		cert.KeyUsage = x509.KeyUsageCertSign
		ca, caKey = cert, key
	} else {
		cert.DNSNames = []string{"localhost"}
		cert.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		cert.KeyUsage = x509.KeyUsageDigitalSignature
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
	if err != nil {
		return fail(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return cert, key, certPEM, keyPEM, nil
}
