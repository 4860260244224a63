package settings

// Webhooks is who is told of what happens.
type Webhooks struct {
	URL     string   `json:"listenerHookURL" required:"false" maxLength:"2048" doc:"Where events are sent; empty: nowhere." example:"https://example.com/hook"`
	Secret  string   `json:"webhookSecret" required:"false" maxLength:"1024" doc:"Signs what is sent: X-Sluice-Signature is v1= and hex(HMAC-SHA256(secret, X-Sluice-Timestamp + '.' + body)); empty: nothing is signed."`
	Form    bool     `json:"webhookForm" required:"false" doc:"Events are sent as forms, not as JSON."`
	Actions []string `json:"webhookActions" required:"false" nullable:"false" maxItems:"20" enum:"liveStreamStarted,liveStreamEnded,playStarted,playStopped,highResourceUsage" doc:"What is told; empty: all."`
}
