package kafka

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
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

func TestValidateName(t *testing.T) {
	for name, ok := range map[string]bool{"shop": true, "shop-2": true, "0": true, "": false, "-a": false, "Shop": false, "a.b": false, "a/b": false, strings.Repeat("a", 201): false} {
		if err := ValidateName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSecret_DoesNotPrint(t *testing.T) {
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

// What each right is needed for, and that its absence is told with the remedy.
func TestSink_LoginAndAccessRights(t *testing.T) {
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
