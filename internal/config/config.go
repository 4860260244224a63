// Package config holds every setting of Sluice with its default, and reads them from
// sluice.yaml and from SLUICE_… variables. Flags, which come last, are parsed in cmd.
//
// Imports: cluster, media.
package config

import "time"

// Config is sluice.yaml. Only cmd and the wiring of a node see it; each package has a small
// Config of its own. The tags say all there is to a setting: its key, its default, what its value must be (see checks.go),
// and its help. An empty default means "" or an empty list.
type Config struct {
	Shared

	Log     Log     `yaml:"log"`
	Trace   Trace   `yaml:"trace"`
	Node    Node    `yaml:"node"`
	Gateway Gateway `yaml:"gateway"`
	Up      Up      `yaml:"up"`
}

// Shared is what all processes of a cluster have in common.
type Shared struct {
	Store string `yaml:"store" default:"sqlite:sluice.db" check:"store" help:"Where nodes find each other: sqlite:PATH, mongodb://… or ADDRESS."`
}

// Log is how a process writes what it does, to standard error.
type Log struct {
	Level  string `yaml:"level" default:"info" enum:"debug,info,warn,error" help:"The least that is written: debug, info, warn or error."`
	Format string `yaml:"format" default:"text" enum:"text,json" help:"Form of a line: text or json."`
}

// Trace is where spans of requests go.
type Trace struct {
	Endpoint string  `yaml:"endpoint" default:"" check:"collector" help:"Collector of OpenTelemetry traces, OTLP over HTTP, such as http://127.0.0.1:4318; empty: none."`
	Ratio    float64 `yaml:"ratio" default:"0.1" check:"fraction" help:"Share of the requests that are traced, 0 to 1."`
}

// Node is one process that takes or serves streams.
type Node struct {
	Role   string `yaml:"role" default:"standalone" enum:"standalone,origin,edge,transcoder" help:"What the node opens: standalone, origin, edge or transcoder."`
	ID     string `yaml:"id" default:"" check:"id" help:"Name in the cluster, unique; empty: host name and process id."`
	Region string `yaml:"region" default:"" check:"id" help:"Where the node is, for placement."`

	HTTP        string   `yaml:"http" default:":5080" check:"listen" help:"Address of HTTP and WebSocket."`
	Media       string   `yaml:"media" default:":50000" check:"listen" help:"Address of WebRTC media, UDP and TCP."`
	MediaTCP    bool     `yaml:"media-tcp" default:"true" negatable:"" help:"Take media over TCP, too, from clients without UDP."`
	Relay       string   `yaml:"relay" default:":5000" check:"listen" help:"Address of the relay between nodes, UDP."`
	RelayFanout int      `yaml:"relay-fanout" default:"16" check:"some" help:"Nodes that take one stream from this one; more are sent on to those."`
	Announce    []string `yaml:"announce" default:"" check:"announce" help:"Addresses at which clients reach this node; auto: its cloud says it; stun:HOST:PORT; empty: those of its network interfaces."`
	Address     string   `yaml:"address" default:"" check:"ip-or-none" help:"Address at which gateways and nodes reach this one; empty: the first of announce."`

	Apps           []string `yaml:"apps" default:"live,WebRTCAppEE" check:"name" help:"Applications that exist."`
	PlayURL        string   `yaml:"play-url" default:"" check:"origin" help:"Where the publish page says viewers watch: https://HOST:PORT, or :PORT of the page's host."`
	PublishURL     string   `yaml:"publish-url" default:"" check:"origin" help:"Where the pages say people publish: https://HOST:PORT, or :PORT of the page's host."`
	TrustedProxies []string `yaml:"trusted-proxies" default:"127.0.0.0/8,::1/128" check:"prefix" help:"Who may say a client's address in X-Forwarded-For."`
	Codecs         []string `yaml:"codecs" default:"H264,VP8,VP9,AV1,H265,opus,PCMU,PCMA" enum:"H264,VP8,VP9,AV1,H265,opus,PCMU,PCMA" help:"Codecs asked of publishers, best first."`

	ICE     ICE     `yaml:"ice" embed:"" prefix:"ice-"`
	TURN    TURN    `yaml:"turn" embed:"" prefix:"turn-"`
	Publish Publish `yaml:"publish" embed:"" prefix:"publish-"`

	Ladder Ladder `yaml:"ladder" embed:"" prefix:"ladder-"`

	PlayoutDelay     string        `yaml:"playout-delay" default:"100ms" check:"playout" help:"Players keep pictures back for so long at most to even out their coming: 0s to 40s, or off: as they like."`
	KeyFrameInterval time.Duration `yaml:"key-frame-interval" default:"4s" check:"positive" help:"A publisher is asked for a key frame when none came for so long."`
	EdgeIdle         time.Duration `yaml:"edge-idle" default:"5s" check:"positive" help:"An edge keeps a stream for so long after its last viewer."`

	Accounts Accounts `yaml:"accounts" embed:"" prefix:"accounts-"`
	Access   Access   `yaml:"access" embed:"" prefix:"access-"`

	Limits        Limits        `yaml:"limits" embed:"" prefix:"limits-"`
	DrainDeadline time.Duration `yaml:"drain-deadline" default:"30s" check:"positive" help:"A node that stops gives its clients so long to move."`
	CloudNotice   string        `yaml:"cloud-notice" default:"off" enum:"off,azure" help:"Whose warnings of a machine's end begin a drain: azure (Scheduled Events) or off."`
}

// Accounts is about people who log in.
type Accounts struct {
	SessionIdle time.Duration `yaml:"session-idle" default:"12h" check:"positive" help:"A session that nobody uses for so long ends."`
	SessionLife time.Duration `yaml:"session-life" default:"168h" check:"positive" help:"Every session ends then."`
	AuditKeep   time.Duration `yaml:"audit-keep" default:"2160h" check:"positive" help:"How long the audit log keeps an entry."`
	FirstLink   bool          `yaml:"first-link" default:"true" negatable:"" help:"Print a link for the first administrator while there is no account."`
}

// Access is about those who publish and play.
type Access struct {
	PrivateHosts []string `yaml:"private-hosts" default:"" check:"prefix" help:"Private networks in which webhooks and key sets may be, such as 10.1.0.0/16; none: only public addresses are asked."`
}

// ICE is what clients are told about finding a way to the node.
type ICE struct {
	Servers    []string `yaml:"servers" default:"" check:"ice" help:"STUN and TURN servers given to clients."`
	Username   string   `yaml:"username" default:"" help:"User at the TURN servers."`
	Credential Secret   `yaml:"credential" default:"" help:"Password at the TURN servers, or file:PATH."`
}

// TURN is a relay built into the node, for clients that reach neither the UDP nor the TCP port of media.
type TURN struct {
	Listen string `yaml:"listen" default:"" check:"listen-or-off" help:"Address of the TURN server, UDP and TCP, such as :3478; empty: none."`
	Secret Secret `yaml:"secret" default:"" help:"Of which clients' passwords are made, or file:PATH; empty: made at random."`
	Public string `yaml:"public" default:"" check:"ip-or-none" help:"Its address for clients; empty: that of media."`
	Ports  string `yaml:"ports" default:"" check:"ports" help:"Where clients' sockets are, FIRST-LAST; empty: anywhere."`
}

// Publish is what happens between publishers of one stream.
type Publish struct {
	Silence  time.Duration `yaml:"silence" default:"1s" check:"positive" help:"A publisher that sends nothing for so long may be taken over."`
	Grace    time.Duration `yaml:"grace" default:"10s" check:"positive" help:"Viewers wait so long for a publisher that was lost."`
	Farewell time.Duration `yaml:"farewell" default:"2s" check:"positive" help:"Viewers wait so long after a publisher stopped of its own will."`
}

// Ladder is which smaller renditions are made of streams.
type Ladder struct {
	Rungs    []string `yaml:"rungs" default:"" check:"rung" help:"Renditions to make of each stream, such as 720p:1500k; none: streams are played as they are published."`
	Rules    []string `yaml:"rules" default:"" check:"rule" help:"Other renditions for some streams, such as live/stage=1080p:4M+480p:800k, live/camera*=240p:400k or other/*=none."`
	By       string   `yaml:"by" default:"origin" enum:"origin,transcoders" help:"Who makes them: the origin to which is published, or nodes of the role transcoder."`
	OnDemand bool     `yaml:"on-demand" default:"false" negatable:"" help:"Make only renditions that somebody watches."`
	Encoders []string `yaml:"encoders" default:"" enum:"libx264,libopenh264,libvpx,libvpx-vp9,libsvtav1,libaom-av1,h264_nvenc,h264_qsv,h264_vaapi,vp8_vaapi,vp9_vaapi,vp9_qsv,av1_nvenc" help:"FFmpeg's encoders to be tried first, such as h264_nvenc; none: those in software."`
	Preset   string   `yaml:"preset" default:"superfast" enum:"ultrafast,superfast,veryfast,faster,fast,medium" help:"Effort of libx264."`
}

// Limits is when a node says that it is full.
type Limits struct {
	Viewers int     `yaml:"viewers" default:"0" check:"count" help:"Most viewers; 0: no limit."`
	CPU     float64 `yaml:"cpu" default:"0.85" check:"fraction" help:"Most use of the processors, 0 to 1."`
	Cores   float64 `yaml:"cores" default:"0" check:"count" help:"Processors that are this node's share, such as 0.5; 0: its cgroup's, or the machine's."`
	Memory  float64 `yaml:"memory" default:"0.85" check:"fraction" help:"Most use of the memory, 0 to 1."`
	Egress  int     `yaml:"egress" default:"0" check:"count" help:"Most that is sent, Mbit/s; 0: no limit."`
}

// Gateway is the front door.
type Gateway struct {
	Publish        string        `yaml:"publish" default:":443" check:"listen-or-off" help:"Address for publishers, HTTPS; goes to origins; empty, as play: none."`
	Play           string        `yaml:"play" default:":5443" check:"listen-or-off" help:"Address for viewers, HTTPS; goes to edges; empty, as publish: none."`
	Redirect       string        `yaml:"redirect" default:":80" check:"listen-or-off" help:"Address of plain HTTP that sends people to HTTPS; empty: none."`
	Certificate    string        `yaml:"certificate" default:"" help:"File of the TLS certificate with its chain, PEM."`
	Key            string        `yaml:"key" default:"" help:"File of the certificate's private key, PEM."`
	TrustedProxies []string      `yaml:"trusted-proxies" default:"" check:"prefix" help:"Who may say a client's address in X-Forwarded-For."`
	HealthInterval time.Duration `yaml:"health-interval" default:"300ms" check:"positive" help:"Nodes are asked so often whether they are well."`
	Region         string        `yaml:"region" default:"" check:"id" help:"Where the gateway is; nodes of the same region come first."`
	Operators      string        `yaml:"operators" default:"127.0.0.1:5081" check:"listen-or-off" help:"Address for operators, plain HTTP: /scaling, /metrics; empty: none."`
	Scale          Scale         `yaml:"scale" embed:"" prefix:"scale-"`
}

// Scale is when a group of nodes should grow or shrink, and who is told.
type Scale struct {
	ScaleRules `embed:""`
	Azure      ScaleAzure `yaml:"azure" embed:"" prefix:"azure-"`
}

// ScaleRules are when a group of nodes should grow or shrink.
type ScaleRules struct {
	CPU    float64       `yaml:"cpu" default:"0.6" check:"fraction" help:"Mean load of a group at which it grows, 0 to 1."`
	Window time.Duration `yaml:"window" default:"5m" check:"positive" help:"Time over which the mean is taken."`
	Min    int           `yaml:"min" default:"1" check:"some" help:"Fewest nodes of a group."`
}

// ScaleAzure is where Azure's autoscale rules find the scaling signal.
type ScaleAzure struct {
	Endpoint string `yaml:"endpoint" default:"" check:"origin" help:"Azure Monitor gets the signal here: https://REGION.monitoring.azure.com; empty: it does not."`
	Edges    string `yaml:"edges" default:"" help:"Resource id of the edges' scale set."`
	Origins  string `yaml:"origins" default:"" help:"Resource id of the origins' scale set."`
}

// Up is a whole cluster on one machine.
type Up struct {
	Dir         string   `yaml:"dir" default:".sluice" check:"path" help:"Folder of registry, certificates and logs."`
	Origins     int      `yaml:"origins" default:"1" check:"some" help:"Number of origins."`
	Edges       int      `yaml:"edges" default:"2" check:"some" help:"Number of edges."`
	Autoscale   string   `yaml:"autoscale" default:"" check:"range" help:"Edges come and go with the load: MIN-MAX, or auto for --edges to twice as many; empty: they don't." placeholder:"[MIN-MAX]"`
	EdgeCores   float64  `yaml:"edge-cores" default:"0" check:"count" help:"Processors that count as an edge's own for --autoscale; 0: the machine's by MAX."`
	PublishPort int      `yaml:"publish-port" default:"8443" check:"port" help:"Port for publishers, HTTPS."`
	PlayPort    int      `yaml:"play-port" default:"5443" check:"port" help:"Port for viewers, HTTPS."`
	Hosts       []string `yaml:"hosts" default:"" check:"host" help:"More names and addresses for the certificate; this machine's own are in it."`
	LogSize     Size     `yaml:"log-size" default:"16MB" check:"positive" help:"A log this long is set aside when its process starts."`
}

// Default returns the settings that hold when nothing is said.
func Default() *Config {
	c := new(Config)
	for _, f := range fields("", c) {
		if err := f.set(f.fallback()); err != nil {
			panic("config: default of " + f.path + ": " + err.Error()) // a wrong tag; every test fails
		}
	}
	return c
}
