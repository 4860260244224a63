package settings

// Webhooks is who is told of what happens.
type Webhooks struct{}
