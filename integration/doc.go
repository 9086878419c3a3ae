// Package integration tests headwater as a whole: the built program, real databases,
// a real Kafka and a real schema registry, killed at random moments, and an
// independent check of what a reader of the topics sees. It holds no code that others
// import; the servers that the tests start are in integration/servers.
//
// Files: imports_test.go keeps the import rule; program_test.go is the program under
// SIGKILL; workload_test.go and checker_test.go are the load, the server's own
// record of it, and the check against that; conformance_test.go compares with what a real Debezium wrote.
package integration
