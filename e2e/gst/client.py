#!/usr/bin/python3
"""A WHIP publisher and a WHEP viewer on GStreamer's webrtcbin (1.20 and newer), for tests.

  client.py publish URL [--video h264|vp8] [--token TOKEN] [--mode-missing]
  client.py play URL [--token TOKEN] [--nack]
  client.py check                     prints the Debian packages that are missing

Each step is one line of JSON on standard output. It runs until its standard input ends, then sends DELETE.
"""

import argparse
import http.client
import json
import ssl
import sys
import threading
import urllib.parse

NEEDED = {
    'Gst': 'gir1.2-gstreamer-1.0', 'GstSdp': 'gir1.2-gst-plugins-base-1.0', 'GstWebRTC': 'gir1.2-gst-plugins-bad-1.0',
    'opusenc': 'gstreamer1.0-plugins-base', 'vp8enc': 'gstreamer1.0-plugins-good', 'webrtcbin': 'gstreamer1.0-plugins-bad',
    'openh264dec': 'gstreamer1.0-plugins-bad', 'x264enc': 'gstreamer1.0-plugins-ugly', 'nicesrc': 'gstreamer1.0-nice',
}
missing = set()
try:
    import gi
    for name in [n for n in NEEDED if n.startswith('Gst')]:
        try:
            gi.require_version(name, '1.0')
        except ValueError:
            missing.add(NEEDED[name])
    if not missing:
        from gi.repository import GLib, Gst, GstSdp, GstWebRTC
        Gst.init(None)
        missing |= {package for name, package in NEEDED.items() if not name.startswith('Gst') and not Gst.ElementFactory.find(name)}
except ImportError:
    missing.add('python3-gi')

# The usual encoders; packets have up to 1,400 bytes, the default of these elements. With sliced-threads, on which zerolatency
# insists otherwise, rtph264depay 1.22 can't put together again what rtph264pay config-interval=-1 made.
ENCODERS = {
    'h264': 'x264enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max=60 sliced-threads=false ! video/x-h264,profile=constrained-baseline'
            ' ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! application/x-rtp,media=video,encoding-name=H264,payload=96',
    'vp8': 'vp8enc deadline=1 target-bitrate=800000 keyframe-max-dist=60 ! rtpvp8pay ! application/x-rtp,media=video,encoding-name=VP8,payload=97',
}
PUBLISH = (
    'webrtcbin name=peer bundle-policy=max-bundle'
    ' videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! {video} ! queue ! peer.'
    ' audiotestsrc is-live=true wave=ticks ! audioconvert ! opusenc ! rtpopuspay ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! queue ! peer.'
)
# What a viewer asks for. The first video format that the answer keeps is played.
WANTED = (
    'application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,packetization-mode=(string)1,profile-level-id=(string)42e01f;'
    'application/x-rtp,media=video,encoding-name=VP8,payload=97,clock-rate=90000',
    'application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2',
)


speaking = threading.Lock()  # webrtcbin's threads speak too


def say(what, **more):
    with speaking:
        sys.stdout.write(json.dumps({'event': what, **more}) + '\n')
        sys.stdout.flush()


class Resource:
    """The HTTP side: one connection for each request, certificates are not checked."""

    def __init__(self, url, token):
        self.url, self.token = url, token
        self.location = self.etag = None

    def request(self, method, url, body=None, headers=None):
        u = urllib.parse.urlsplit(url)
        if u.scheme == 'https':
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            c = http.client.HTTPSConnection(u.netloc, timeout=10, context=context)
        else:
            c = http.client.HTTPConnection(u.netloc, timeout=10)
        headers = dict(headers or {})
        if self.token:
            headers['Authorization'] = 'Bearer ' + self.token
        try:
            c.request(method, u.path + ('?' + u.query if u.query else ''), body, headers)
            r = c.getresponse()
            text = r.read().decode()
        finally:
            c.close()
        say('http', method=method, status=r.status, sent=headers, headers=dict(r.getheaders()), body=text)
        if r.status >= 300:
            raise RuntimeError(f'{method} {url}: {r.status} {text}')
        return r, text

    def post(self, offer):
        r, answer = self.request('POST', self.url, offer, {'Content-Type': 'application/sdp'})
        self.location = urllib.parse.urljoin(self.url, r.getheader('Location'))
        self.etag = r.getheader('ETag')
        return answer

    def patch(self, fragment):
        self.request('PATCH', self.location, fragment, {'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': self.etag})

    def delete(self):
        self.request('DELETE', self.location)


class Client:
    def __init__(self, args):
        self.resource = Resource(args.url, args.token)
        self.loop = GLib.MainLoop()
        self.failed = False
        self.candidates = []  # gathered before the answer came
        self.frames = {}
        if args.do == 'publish':
            video = ENCODERS[args.video]
            self.pipe = Gst.parse_launch(PUBLISH.format(video=video))
            self.peer = self.pipe.get_by_name('peer')
        else:
            self.pipe = Gst.Pipeline()
            self.peer = Gst.ElementFactory.make('webrtcbin', 'peer')
            self.peer.set_property('bundle-policy', GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
            self.pipe.add(self.peer)
            self.peer.connect('pad-added', self.on_pad)
            for caps in WANTED:
                transceiver = self.peer.emit('add-transceiver', GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, Gst.Caps.from_string(caps))
                transceiver.set_property('do-nack', args.nack)
        self.sending = args.do == 'publish'
        self.drop_mode = args.mode_missing
        self.peer.connect('on-negotiation-needed', self.on_negotiation)
        self.peer.connect('on-ice-candidate', self.on_candidate)
        self.peer.connect('notify::connection-state', self.on_state)
        bus = self.pipe.get_bus()
        bus.add_signal_watch()
        bus.connect('message::error', self.on_error)

    # webrtcbin calls from threads of its own; what talks HTTP is done in the main loop.
    def later(self, f, *args):
        def run():
            try:
                f(*args)
            except Exception as e:  # any failure ends the program
                self.fail(str(e))
            return False
        GLib.idle_add(run)

    def fail(self, why):
        say('error', message=why)
        self.failed = True
        self.loop.quit()

    def on_error(self, _bus, message):
        error, debug = message.parse_error()
        self.fail(f'{error.message} ({debug})')

    def on_negotiation(self, peer):
        if self.sending:
            for i in range(2):
                peer.emit('get-transceiver', i).set_property('direction', GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        peer.emit('create-offer', None, Gst.Promise.new_with_change_func(self.on_offer, peer))

    def on_offer(self, promise, peer):
        reply = promise.get_reply()
        offer = reply.get_value('offer')
        peer.emit('set-local-description', offer, Gst.Promise.new())
        text = offer.sdp.as_text()
        if self.drop_mode:
            text = text.replace('packetization-mode=1;', '').replace(';packetization-mode=1', '')
        self.later(self.negotiate, text)

    def negotiate(self, offer):
        say('offer', sdp=offer)
        answer = self.resource.post(offer)
        _, message = GstSdp.SDPMessage.new_from_text(answer)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        applied = Gst.Promise.new()
        self.peer.emit('set-remote-description', description, applied)
        if applied.wait() != Gst.PromiseResult.REPLIED:
            raise RuntimeError('webrtcbin did not take the answer')
        reply = applied.get_reply()
        if reply and reply.has_field('error'):
            raise RuntimeError(f'webrtcbin refused the answer: {reply.to_string()}')
        self.ufrag, self.pwd = (line(offer, 'a=ice-ufrag:'), line(offer, 'a=ice-pwd:'))
        self.trickle()

    def on_candidate(self, _peer, mline, candidate):
        self.later(self.take_candidate, mline, candidate)

    def take_candidate(self, mline, candidate):
        self.candidates.append((mline, candidate))
        self.trickle()

    def trickle(self):
        """Sends what was gathered since the last time, once the session is known (RFC 9725 §4.3.1)."""
        if not self.resource.location or not self.candidates:
            return
        waiting, self.candidates = self.candidates, []
        lines = [f'a=ice-ufrag:{self.ufrag}', f'a=ice-pwd:{self.pwd}']
        for mline in sorted({m for m, _ in waiting}):
            lines += ['m=audio 9 UDP/TLS/RTP/SAVPF 0', f'a=mid:{self.mid(mline)}']
            lines += ['a=' + c if c else 'a=end-of-candidates' for m, c in waiting if m == mline]
        self.resource.patch('\r\n'.join(lines) + '\r\n')

    def mid(self, mline):
        return self.peer.emit('get-transceiver', mline).get_property('mid')

    def on_state(self, peer, _property):
        state = peer.get_property('connection-state').value_nick
        say('state', state=state)
        if state == 'failed':
            self.later(self.fail, 'the connection failed')

    def on_pad(self, _peer, pad):
        """Decodes what arrives and counts it."""
        caps = pad.get_current_caps().get_structure(0)
        name = caps.get_string('encoding-name')
        chain = {
            'H264': 'rtph264depay ! h264parse ! openh264dec',
            'VP8': 'rtpvp8depay ! vp8dec',
            'OPUS': 'rtpopusdepay ! opusdec',
        }[name]
        part = Gst.parse_bin_from_description(f'queue ! {chain} ! fakesink name=end sync=false async=false signal-handoffs=true', True)
        self.pipe.add(part)
        part.sync_state_with_parent()
        pad.link(part.get_static_pad('sink'))
        say('track', codec=name, caps=caps.to_string())
        self.frames[name] = 0

        def count(_sink, _buffer, sink_pad):
            self.frames[name] += 1
            if self.frames[name] == 1:
                say('first', codec=name, caps=sink_pad.get_current_caps().to_string())
        part.get_by_name('end').connect('handoff', count)

    def tell(self):
        if self.frames:
            say('frames', **self.frames)
        return True

    def run(self):
        self.pipe.set_state(Gst.State.PLAYING)
        GLib.timeout_add(250, self.tell)
        threading.Thread(target=self.until_told, daemon=True).start()
        self.loop.run()
        try:
            if self.resource.location:
                self.resource.delete()
        except Exception as e:
            say('error', message=str(e))
            self.failed = True
        self.pipe.set_state(Gst.State.NULL)
        return 1 if self.failed else 0

    def until_told(self):
        sys.stdin.read()
        GLib.idle_add(self.loop.quit)


def line(sdp, start):
    return next(l[len(start):] for l in sdp.splitlines() if l.startswith(start))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('do', choices=['publish', 'play', 'check'])
    p.add_argument('url', nargs='?')
    p.add_argument('--video', choices=sorted(ENCODERS), default='h264')
    p.add_argument('--token')
    p.add_argument('--nack', action='store_true', help='as a player, ask for packets that were lost')
    p.add_argument('--mode-missing', action='store_true', help='offer H.264 without packetization-mode, as encoders do whose caps lack it')
    args = p.parse_args()
    if args.do == 'check':
        print(' '.join(sorted(missing)))
        return 0
    if missing:
        sys.exit('install ' + ' '.join(sorted(missing)))
    return Client(args).run()


if __name__ == '__main__':
    sys.exit(main())
