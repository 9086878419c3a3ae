// Package servers gets and starts real PostgreSQL, MySQL, MariaDB, Kafka and schema
// registry servers natively on loopback, without a container engine: for tests, and
// for "headwater demo", which needs a private database.
//
// A test asks for a server of its own, or for one that all tests of its binary
// share:
//
//	pg := servers.Own(t).Postgres("15")          // may be killed and restarted
//	db := servers.Shared(t).Postgres("18").Database(t) // URL of a database of its own
//	my := servers.Shared(t).MySQL("9")            // my.Addr(), my.User(), my.URL("")
//	db := my.Database(t)                          // name of a database of its own
//	ma := servers.Own(t).MariaDBWith(servers.MySQLConfig{
//		Version:  "10.11",
//		Settings: map[string]string{"binlog_row_image": "MINIMAL"},
//	})
//	k := servers.Shared(t).Kafka()                // k.Bootstrap
//	r := servers.Shared(t).Registry()             // r.URL
//
// Outside a test, [StartPostgres], [StartMySQL], [StartMariaDB], [StartKafka] and
// [StartRegistry] return the same types. Their context bounds the start only.
//
// MySQL and MariaDB are the type [MySQL]. A failover is played with two of them:
//
//	source, replica := servers.Own(t).MySQL("9"), servers.Own(t).MySQL("9")
//	err := replica.Follow(ctx, source)  // by GTID, from the first transaction
//	err = replica.CatchUp(ctx, source)  // or not, for a failover that loses some
//	err = source.Kill()
//	err = replica.Promote(ctx)
//	err = source.Restart(ctx)
//	err = source.Follow(ctx, replica)
//
// # Rules that always hold
//
//   - A server never outlives the process that started it. On Linux the kernel
//     ends it even when that process gets SIGKILL; elsewhere Stop or Close must
//     be reached.
//   - Nothing listens on any other address than 127.0.0.1. Ports are free ones
//     below the system's ephemeral range, and reserved for their server in the
//     cache, so that one which is restarted finds its port unused.
//   - Versions are pinned, and so is the SHA-256 of every file that is fetched. What
//     comes from Debian cannot be pinned: it is the release that Debian has at the
//     time of the fetch, verified by Debian's signature, and stays in the cache.
//   - What is fetched or prepared lies in one cache folder. Its entries appear
//     whole or not at all, and each is made by one process while others wait.
//   - A server's data lies in a run folder below the cache. Close removes it; what
//     killed processes left behind is removed at the next start of any server.
//
// # What must be installed
//
// Fetching takes Maven's mvn; PostgreSQL alone can also be fetched without it.
// MySQL 9 and MariaDB are fetched by apt-get, for which no user need be root and
// nothing is installed, and run on the C library that comes with them; MySQL 8.0
// takes mvn, and apt-get where the machine lacks the library libaio.so.1. A MySQL or
// MariaDB without a named version is the one that is installed on the machine, if
// there is one.
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
//   - HEADWATER_TEST_MYSQL_8_0, HEADWATER_TEST_MYSQL_9, HEADWATER_TEST_MARIADB_10_11,
//     HEADWATER_TEST_MARIADB_11: the same, as mysql://user:password@host:port/ of a
//     superuser; HEADWATER_TEST_MYSQL and HEADWATER_TEST_MARIADB for tests that name
//     no version.
//   - HEADWATER_DEBIAN_MIRROR: address of a mirror of Debian; default the one that
//     the machine's apt uses.
//   - HEADWATER_TEST_KAFKA: bootstrap addresses (host:port, separated by commas).
//   - HEADWATER_TEST_REGISTRY: base URL of a registry with the Confluent API.
//
// A server from the environment is never stopped or reconfigured: tests that
// bring a configuration, a crash or a restart start their own all the same (the
// methods PostgresWith, MySQLWith, MariaDBWith, KafkaWith and RegistryWith).
package servers
