// Package deps keeps modules in go.mod while the first packages are written.
package deps

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/at-wat/ebml-go/webm"
	_ "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	_ "github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	_ "github.com/coder/websocket"
	_ "github.com/goccy/go-yaml"
	_ "github.com/pion/ice/v4"
	_ "github.com/pion/interceptor"
	_ "github.com/pion/rtcp"
	_ "github.com/pion/rtp"
	_ "github.com/pion/rtp/codecs"
	_ "github.com/pion/sdp/v3"
	_ "github.com/pion/webrtc/v4"
	_ "github.com/pion/webrtc/v4/pkg/media/samplebuilder"
	_ "github.com/quic-go/quic-go"
	_ "golang.org/x/image/font/gofont/gomono"
	_ "golang.org/x/net/ipv4"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"
)
