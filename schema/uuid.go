package schema

import (
	"crypto/md5"
	"encoding/hex"
)

// nameUUIDOf is the version 3 UUID of a name without a namespace, as Java's
// UUID.nameUUIDFromBytes makes it.
func nameUUIDOf(name []byte) string {
	sum := md5.Sum(name)
	sum[6] = sum[6]&0x0f | 0x30
	sum[8] = sum[8]&0x3f | 0x80
	x := hex.EncodeToString(sum[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}
