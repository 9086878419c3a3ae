package kafka

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

func TestConfig_ValidateNamesEveryMistake(t *testing.T) {
	good := Config{Brokers: []string{"kafka-1:9092", "[::1]:9092"}}
	good.SetDefaults()
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	bad := Config{
		Brokers: []string{"kafka"}, Delivery: "maybe", Compression: "rar", TransactionTimeout: time.Hour, Linger: new(time.Minute),
		Topics: TopicConfig{Replication: -1}, TLS: TLS{CAFile: "ca.pem", KeyFile: "key.pem"}, SASL: SASL{Mechanism: "GSSAPI"},
	}
	err := bad.Validate()
	for _, key := range []string{
		"brokers", "delivery", "compression", "transaction_timeout", "linger", "max_record_bytes", "buffer_records",
		"topics.partitions", "topics.replication", "tls.cert_file", "tls.enabled", "sasl.mechanism",
	} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named in: %v", key, err)
		}
	}
	both := good
	both.SASL = SASL{Mechanism: "PLAIN", Username: "u", Password: "a", PasswordFile: "b"}
	if err := both.Validate(); err == nil || strings.Contains(err.Error(), `"a"`) {
		t.Errorf("two passwords: %v", err)
	}
}

// Bounds that the client does not take would show when the pipeline starts.
func TestConfig_TheClientTakesTheBounds(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1 << 10, 96 << 20} {
		r := newRig(t, nil)
		r.cfg.MaxRecordBytes, r.cfg.BufferBytes = size, max(size, checkpointBytes)
		if err := r.cfg.Validate(); err != nil {
			t.Errorf("%d: %v", size, err)
		}
		if err := r.sink().Fence(t.Context()); err != nil {
			t.Errorf("%d: %v", size, err)
		}
		r.cfg.MaxRecordBytes, r.cfg.BufferBytes = size, checkpointBytes-1
		if err := r.cfg.Validate(); err == nil || !strings.Contains(err.Error(), "buffer_bytes") {
			t.Errorf("%d with a small buffer: %v", size, err)
		}
	}
}

func TestValidateName(t *testing.T) {
	for name, ok := range map[string]bool{"shop": true, "shop-2": true, "0": true, "": false, "-a": false, "Shop": false, "a.b": false, "a/b": false, strings.Repeat("a", 201): false} {
		if err := ValidateName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestConfig_PrintsNoSecret(t *testing.T) {
	c := Config{Brokers: []string{"kafka:9092"}, SASL: SASL{Mechanism: "PLAIN", Username: "u", Password: "hunter2"}}
	c.SetDefaults()
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("config", "sasl", c.SASL, "password", c.SASL.Password)
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.SASL.Password, c.SASL.Password), logged.String(), string(encoded), fmt.Sprint(c.Validate()),
	} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("the password shows in %s", text)
		}
	}
	if pass, err := c.SASL.password(); pass != "hunter2" || err != nil {
		t.Errorf("the password is %q, %v", pass, err)
	}
}

func TestConfig_OptionsNameTheFileThatIsWrong(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for key, tls := range map[string]TLS{
		"tls.ca_file":   {Enabled: true, CAFile: empty},
		"no such file":  {Enabled: true, CAFile: "missing.pem"},
		"tls.cert_file": {Enabled: true, CertFile: empty, KeyFile: empty},
	} {
		c := Config{Brokers: []string{"kafka:9092"}, TLS: tls}
		c.SetDefaults()
		if _, err := New(pipeline, c, nil, nil); !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// selfSigned makes a certificate for 127.0.0.1 that only its own file vouches for.
func selfSigned(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", private)
}

// Who meets the wrong kind of port is told which setting to change. Before the first
// success that stops the pipeline, unless a broker that goes down looks the same.
func TestSink_NamesTheSettingThatConnectingNeeds(t *testing.T) {
	t.Parallel()
	certFile, keyFile := selfSigned(t)
	ours, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	// answers makes a port that reads the first bytes, sends its answer and hangs up.
	answers := func(answer []byte) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := c.Read(make([]byte, 4096)); err == nil {
				c.Write(answer)
			}
		}
	}
	handshake := func(cfg *tls.Config) func(net.Conn) {
		cfg.Certificates = []tls.Certificate{ours}
		return func(c net.Conn) {
			s := tls.Server(c, cfg)
			if s.Handshake() == nil {
				s.Read(make([]byte, 4096))
			}
			io.Copy(io.Discard, c) // so that the alert is not lost in a reset
		}
	}
	encrypted := TLS{Enabled: true, CAFile: certFile}
	for _, c := range []struct {
		name    string
		port    func(net.Conn)
		tls     TLS
		want    string
		refused bool
	}{
		{"plaintext on a TLS port", answers([]byte{21, 3, 3, 0, 2, 2, 10}), TLS{}, "set tls.enabled to true", true},
		{"TLS on a port that answers in plaintext", answers([]byte("\x00\x00\x00\x04what")), encrypted, "set tls.enabled to false", true},
		{"TLS on a port that hangs up", answers(nil), encrypted, "set tls.enabled to false", false},
		{"plaintext on a port that hangs up", answers(nil), TLS{}, "(tls.enabled) or a login (sasl)", false},
		{"no certificate, TLS 1.3", handshake(&tls.Config{ClientAuth: tls.RequireAnyClientCert}), encrypted, "set tls.cert_file", true},
		{"no certificate, TLS 1.2", handshake(&tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}), encrypted, "set tls.cert_file", true},
		{"an unknown authority", handshake(&tls.Config{}), TLS{Enabled: true}, "set tls.ca_file", true},
		{"another name", handshake(&tls.Config{}), TLS{Enabled: true, CAFile: certFile, ServerName: "kafka"}, "tls.server_name", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var ports sync.WaitGroup
			ports.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					ports.Go(func() { defer conn.Close(); c.port(conn) })
				}
			})
			t.Cleanup(func() { l.Close(); ports.Wait() })
			r := &rig{T: t, cfg: Config{Brokers: []string{l.Addr().String()}, TLS: c.tls}}
			r.cfg.SetDefaults()
			r.cfg.extra = []kgo.Opt{kgo.RequestRetries(2), kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond })}
			s := r.sink()
			err = s.Fence(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, publish.ErrRefused) != c.refused {
				t.Errorf("Fence returned %v", err)
			}
			s.connected = true // the brokers, or their settings, are being changed
			if err := s.Fence(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, publish.ErrRefused) {
				t.Errorf("later, Fence returned %v", err)
			}
		})
	}
}

// What each right is needed for, and that its absence is told with the remedy.
func TestSink_LoginAndAccessRights(t *testing.T) {
	t.Parallel()
	allow := func(resource kmsg.ACLResourceType, name string, ops ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, op := range ops {
			acls = append(acls, kfake.ACL{Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true})
		}
		return acls
	}
	id := allow(kmsg.ACLResourceTypeTransactionalId, "headwater.shop", kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
	cp := allow(kmsg.ACLResourceTypeTopic, checkpoint.TopicName(pipeline), kmsg.ACLOperationCreate, kmsg.ACLOperationDescribe, kmsg.ACLOperationRead, kmsg.ACLOperationWrite)
	data := allow(kmsg.ACLResourceTypeTopic, dataTopic, kmsg.ACLOperationDescribe, kmsg.ACLOperationWrite)
	all := append(append(append([]kfake.ACL(nil), id...), cp...), data...)

	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		acls []kfake.ACL
		sasl SASL
		want string // "" for success
	}{
		{"PLAIN", all, SASL{Mechanism: "PLAIN", Username: "u", Password: "secret"}, ""},
		{"SCRAM-SHA-256", all, SASL{Mechanism: "SCRAM-SHA-256", Username: "u", PasswordFile: password}, ""},
		{"SCRAM-SHA-512", all, SASL{Mechanism: "SCRAM-SHA-512", Username: "u", Password: "secret"}, ""},
		{"no right on the transactional id", append(append([]kfake.ACL(nil), cp...), data...), SASL{Mechanism: "PLAIN", Username: "u", Password: "secret"}, "on TransactionalId headwater.shop"},
		{"no right on the checkpoint topic", append(append([]kfake.ACL(nil), id...), data...), SASL{Mechanism: "PLAIN", Username: "u", Password: "secret"}, "on Topic headwater.shop.checkpoint"},
		{"no right on the data topic", append(append([]kfake.ACL(nil), id...), cp...), SASL{Mechanism: "PLAIN", Username: "u", Password: "secret"}, "on each data topic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, &publishtest.Story{Transactions: 10, Size: sizes}, kfake.EnableSASL(), kfake.EnableACLs(),
				kfake.Superuser("PLAIN", "admin", "admin"), kfake.User(c.sasl.Mechanism, "u", "secret", c.acls...))
			r.cfg.SASL = c.sasl
			err := r.supervise(t.Context(), r.publisher())
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if wrong := r.sink().Check(t.Context()); wrong != nil && strings.Contains(wrong.Error(), "not allowed") {
					t.Error(wrong)
				}
				r.cfg.SASL = SASL{Mechanism: "PLAIN", Username: "admin", Password: "admin"} // we need not read what we write
				r.verify(10)
				return
			}
			if !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}
