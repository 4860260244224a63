package signal

import (
	"strings"

	"sluice/internal/problem"
	"sluice/rtc"
)

// fragment is an SDP fragment as trickle ICE sends it (RFC 8840 §9).
type fragment struct {
	ufrag, pwd string
	candidates []rtc.Candidate
}

// What a fragment may hold at most.
const maxCandidates = 128

// parseFragment reads the lines that matter and passes over the others.
func parseFragment(text string) (fragment, error) {
	var f fragment
	mid, mline := "", -1
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		key, value, ok := strings.Cut(line, "=")
		if line != "" && (!ok || len(key) != 1) {
			return f, problem.New(problem.BadSDP, "a line of the fragment is not of the form type=value")
		}
		if key == "m" {
			mline++
			mid = ""
			continue
		}
		name, v, _ := strings.Cut(value, ":")
		if key != "a" {
			continue
		}
		switch name {
		case "mid":
			mid = v
		case "ice-ufrag":
			f.ufrag = v
		case "ice-pwd":
			f.pwd = v
		case "candidate":
			if len(f.candidates) == maxCandidates {
				return f, problem.New(problem.BadCandidate, "there are too many candidates in one fragment")
			}
			f.candidates = append(f.candidates, rtc.Candidate{Candidate: value, MID: mid, MLine: max(mline, 0)})
		}
	}
	return f, nil
}

// restarted is the answer to an ICE restart: the fragment of our first answer that carries the bundle, with new
// credentials. The client forgets the candidates that are not in it (RFC 9725 §4.3.3).
func restarted(answer, ufrag, pwd string) string {
	var out strings.Builder
	inMedia := false
	for line := range strings.Lines(answer) {
		line = strings.TrimRight(line, "\r\n")
		name, _, _ := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, "m="):
			if inMedia {
				return out.String()
			}
			inMedia = true
		case name == "a=ice-ufrag":
			line = name + ":" + ufrag
		case name == "a=ice-pwd":
			line = name + ":" + pwd
		case name == "a=candidate":
			line, _, _ = strings.Cut(line, " ufrag ") // of the ICE session before
		case name == "a=ice-lite", name == "a=ice-options", name == "a=group", name == "a=mid", name == "a=end-of-candidates":
		default:
			continue
		}
		out.WriteString(line + "\r\n")
	}
	return out.String()
}

// attribute is the first value of an SDP attribute, "" when there is none.
func attribute(sdp, name string) string {
	for line := range strings.Lines(sdp) {
		if v, ok := strings.CutPrefix(line, "a="+name+":"); ok {
			return strings.TrimRight(v, "\r\n")
		}
	}
	return ""
}
