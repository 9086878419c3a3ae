// Package integration tests headwater as a whole: the built program, real databases,
// a real Kafka and a real schema registry, killed at random moments, and an
// independent check of what a reader of the topics sees. It holds no code that others
// import; the servers that the tests start are in integration/servers, and what builds
// the program for them is in integration/programtest.
//
// Files: imports_test.go keeps the import rule; program_test.go is the program under
// SIGKILL, failover_test.go under a change of servers; workload*_test.go and
// checker_test.go are the load on each database, another reader's record of its log, and
// the check against that; conformance*_test.go compares with what a real Debezium wrote,
// but for what decided*_test.go says; bench*_test.go prints speed, delay and memory.
package integration
