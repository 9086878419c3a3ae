// Package capturetest holds what tests of sources, and of everything behind a source,
// share: [Source], a scripted source without a database, and [Run], the contract that
// every source passes. The scripted source passes it too, so it cannot lie.
package capturetest
