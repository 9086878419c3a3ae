// Package servers gets and starts real PostgreSQL, Kafka and schema registry
// servers natively on loopback, without a container engine: for tests, and for
// "headwater demo", which needs a private PostgreSQL.
//
// A test asks for a server of its own, or for one that all tests of its binary
// share:
//
//	pg := servers.Own(t).Postgres("15")          // may be killed and restarted
//	db := servers.Shared(t).Postgres("18").Database(t) // URL of a database of its own
//	k := servers.Shared(t).Kafka()                // k.Bootstrap
//	r := servers.Shared(t).Registry()             // r.URL
//
// Outside a test, [StartPostgres], [StartKafka] and [StartRegistry] return the
// same types. Their context bounds the start only.
//
// # Rules that always hold
//
//   - A server never outlives the process that started it. On Linux the kernel
//     ends it even when that process gets SIGKILL; elsewhere Stop or Close must
//     be reached.
//   - Nothing listens on any other address than 127.0.0.1. Ports are free ones
//     below the system's ephemeral range, so that a server which is restarted
//     finds its port unused.
//   - Versions are pinned, and so is the SHA-256 of every file that is fetched.
//   - What is fetched or prepared lies in one cache folder. Its entries appear
//     whole or not at all, and each is made by one process while others wait.
//   - A server's data lies in a run folder below the cache. Close removes it; what
//     killed processes left behind is removed at the next start of any server.
//
// # What must be installed
//
// Fetching takes Maven's mvn; PostgreSQL alone can also be fetched without it.
// Kafka takes Java 17 or newer, the registry 21 or newer, found by JAVA_HOME, in
// PATH or in /usr/lib/jvm; where there is none, python3 -m pip gets one.
// PostgreSQL refuses to run as root: for root it runs in a user namespace of its
// own, in which root goes by another number.
//
// # Environment
//
//   - HEADWATER_CACHE: the cache folder; default headwater/servers in the user's
//     cache folder.
//   - HEADWATER_TEST_POSTGRES_13 to HEADWATER_TEST_POSTGRES_18: URL of a running
//     server that tests use for that version in place of a fetched one.
//     HEADWATER_TEST_POSTGRES does so for tests that name no version.
//   - HEADWATER_TEST_KAFKA: bootstrap addresses (host:port, separated by commas).
//   - HEADWATER_TEST_REGISTRY: base URL of a registry with the Confluent API.
//
// A server from the environment is never stopped or reconfigured: tests that
// bring a configuration, a crash or a restart start their own all the same (the
// methods PostgresWith, KafkaWith and RegistryWith).
package servers
