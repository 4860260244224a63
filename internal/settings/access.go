package settings

// Access is who may publish to an application and play from it.
type Access struct {
	Publish AccessRule `json:"publish" required:"false" doc:"Who may publish."`
	Play    AccessRule `json:"play" required:"false" doc:"Who may play."`
}

// AccessRule is who may do one of the two. Its fields are those of access.Rule, which it is converted to. Secrets are not shown to anybody: see Hide.
type AccessRule struct {
	Methods     []string `json:"methods" required:"false" nullable:"false" maxItems:"5" enum:"open,token,jwt,hash,totp" doc:"Any of them admits; none: everybody may. Who is admitted already and would not be any more is sent away."`
	HashSecret  string   `json:"hashSecret" required:"false" maxLength:"1024" doc:"Of hash: the token is hex(sha256(streamId + role + secret)), the role publish or play; at least 16 bytes."`
	JWTSecret   string   `json:"jwtStreamSecretKey" required:"false" maxLength:"1024" doc:"Of jwt with HS256, at least 32 bytes."`
	JWTKey      string   `json:"jwtPublicKey" required:"false" maxLength:"4096" doc:"Of jwt with RS256 or ES256: the public key, PEM."`
	JWKS        string   `json:"jwksURL" required:"false" maxLength:"2048" doc:"Of jwt with RS256 or ES256: where the set of public keys is."`
	TOTPSecret  string   `json:"timeTokenSecret" required:"false" maxLength:"1024" doc:"Of totp, for subscribers that are not registered; empty: there are none such."`
	Webhook     string   `json:"webhookAuthURL" required:"false" maxLength:"2048" doc:"A server that must agree too, by answering 200 within two seconds; empty: none is asked."`
	WebhookOpen bool     `json:"webhookFailOpen" required:"false" doc:"Who comes while that server does not answer is admitted, which is else refused."`
}

// hidden stands for a secret that there is.
const hidden = "(secret)"

func (r *AccessRule) secrets() []*string {
	return []*string{&r.HashSecret, &r.JWTSecret, &r.TOTPSecret}
}

func (a *App) secrets() []*string {
	return append(append(a.Access.Publish.secrets(), a.Access.Play.secrets()...), &a.Webhooks.Secret)
}

// Hide returns the settings as they are shown: without their secret.
func (c Cluster) Hide() Cluster {
	if c.Webhooks.Secret != "" {
		c.Webhooks.Secret = hidden
	}
	return c
}

// Keep leaves the secret as it was in old if it was only shown as being there.
func (c *Cluster) Keep(old Cluster) {
	if c.Webhooks.Secret == hidden {
		c.Webhooks.Secret = old.Webhooks.Secret
	}
}

// Hide returns the settings as they are shown: without their secrets.
func (a App) Hide() App {
	for _, s := range a.secrets() {
		if *s != "" {
			*s = hidden
		}
	}
	return a
}

// Keep leaves the secrets as they were in old that were only shown as being there.
func (a *App) Keep(old App) {
	was := old.secrets()
	for i, s := range a.secrets() {
		if *s == hidden {
			*s = *was[i]
		}
	}
}
