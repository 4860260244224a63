package api

import (
	"context"
	"net/http"
	"time"

	"sluice/internal/access"
	"sluice/internal/auth"
	"sluice/internal/problem"
	"sluice/media"
)

const (
	tagTokens      = "Tokens"
	tagSubscribers = "Subscribers"
	// maxList is how long lists are that other servers' customers ask for: longer sizes are cut.
	maxList = 50
	// tokenFor is how long a token is good of which nothing is said.
	tokenFor = time.Hour
)

// OfStream names a stream of an application.
type OfStream struct {
	InApp
	ID string `path:"id" minLength:"1" maxLength:"256" doc:"The stream."`
}

// page of a list, in the path.
type pageInput struct {
	OfStream
	Offset int `path:"offset" minimum:"0" maximum:"100000000"`
	Size   int `path:"size" minimum:"0" maximum:"100000000" doc:"At most 50 are returned."`
}

// AccessToken is what lets somebody publish or play a stream.
type AccessToken struct {
	TokenID    string        `json:"tokenId" required:"false" maxLength:"8192" doc:"What to show: a one-time token or a JWT."`
	StreamID   string        `json:"streamId" required:"false" maxLength:"256"`
	ExpireDate int64         `json:"expireDate" required:"false" doc:"In seconds since 1970."`
	Type       access.Action `json:"type" required:"false" enum:"play,publish"`
	RoomID     string        `json:"roomId,omitempty" required:"false" maxLength:"128"`
	Used       bool          `json:"used,omitempty" required:"false" readOnly:"true" doc:"It is bound to a session."`
}

// AccessSubscriber may publish or play a stream with codes of his own.
type AccessSubscriber struct {
	SubscriberID   string         `json:"subscriberId" required:"false" maxLength:"128"`
	SubscriberName string         `json:"subscriberName,omitempty" required:"false" maxLength:"256"`
	StreamID       string         `json:"streamId,omitempty" required:"false" maxLength:"256" readOnly:"true"`
	B32Secret      string         `json:"b32Secret,omitempty" required:"false" maxLength:"256" doc:"Base32 of 10 to 128 bytes; empty: made of the application's secret."`
	Type           access.Action  `json:"type,omitempty" required:"false" enum:",play,publish" doc:"Empty: both."`
	Limit          int            `json:"concurrentConnectionsLimit" required:"false" minimum:"-1" maximum:"100" doc:"0: one; -1: no limit."`
	Connections    int            `json:"currentConcurrentConnections" required:"false" readOnly:"true" doc:"-1: not counted, as there is no limit."`
	Connected      bool           `json:"connected" required:"false" readOnly:"true"`
	BlockedType    access.Blocked `json:"blockedType,omitempty" required:"false" readOnly:"true"`
	BlockedUntil   int64          `json:"blockedUntilUnitTimeStampMs" required:"false" readOnly:"true" doc:"In ms since 1970."`
	Period         int            `json:"totpExpiryPeriodSeconds" required:"false" minimum:"0" maximum:"3600" doc:"How long a code is shown; 0: 60 s."`
}

func (a *API) access() {
	const broadcasts = "/{app}/rest/v2/broadcasts"
	reg := func(method, path, id, tag string, needs auth.Action, does, more string) operation {
		return operation{method: method, path: broadcasts + path, id: id, tag: tag, needs: needs, does: does, more: more}
	}
	register(a, reg(http.MethodGet, "/{id}/token", "makeToken", tagTokens, auth.AccessWrite, "Make a one-time token",
		"It admits one session to one stream."), a.makeToken)
	register(a, reg(http.MethodGet, "/{id}/jwt-token", "makeJWT", tagTokens, auth.AccessWrite, "Make a JWT",
		"It is signed with the application's secret, jwtStreamSecretKey, and is kept nowhere."), a.makeJWT)
	register(a, reg(http.MethodPost, "/validate-token", "validateToken", tagTokens, auth.AccessRead, "Whether a one-time token would admit somebody now",
		"It is not used by that."), a.validateToken)
	register(a, reg(http.MethodGet, "/{id}/tokens/list/{offset}/{size}", "listTokens", tagTokens, auth.AccessRead, "A stream's one-time tokens",
		"Also those that were used, and for an hour those that have expired."), a.listTokens)
	register(a, reg(http.MethodDelete, "/{id}/tokens", "deleteTokens", tagTokens, auth.AccessWrite, "Delete a stream's one-time tokens",
		"The sessions that they have admitted end within two seconds."), a.deleteTokens)
	register(a, reg(http.MethodDelete, "/{id}/tokens/{tokenId}", "deleteToken", tagTokens, auth.AccessWrite, "Delete a one-time token",
		"The session that it has admitted ends within two seconds."), a.deleteToken)
	register(a, reg(http.MethodPost, "/{id}/denied-tokens", "denyJWT", tagTokens, auth.AccessWrite, "Make a JWT void before it expires",
		"tokenId is its claim jti, expireDate until when it is void: when it expires. Its sessions end within two seconds."), a.denyJWT)

	register(a, reg(http.MethodPost, "/{id}/subscribers", "addSubscriber", tagSubscribers, auth.AccessWrite, "Add a subscriber, or change him", ""), a.addSubscriber)
	register(a, reg(http.MethodGet, "/{id}/subscribers/list/{offset}/{size}", "listSubscribers", tagSubscribers, auth.AccessRead, "A stream's subscribers", ""), a.listSubscribers)
	register(a, reg(http.MethodGet, "/{id}/subscribers/{subscriberId}/totp", "getCode", tagSubscribers, auth.AccessWrite, "A subscriber's code at this moment", "It is in dataId."), a.code)
	register(a, reg(http.MethodDelete, "/{id}/subscribers", "deleteSubscribers", tagSubscribers, auth.AccessWrite, "Delete a stream's subscribers", "Their sessions end within two seconds."), a.deleteSubscribers)
	register(a, reg(http.MethodDelete, "/{id}/subscribers/{subscriberId}", "deleteSubscriber", tagSubscribers, auth.AccessWrite, "Delete a subscriber", "His sessions end within two seconds."), a.deleteSubscriber)
	register(a, reg(http.MethodPut, "/{id}/subscribers/{subscriberId}/block/{seconds}/{type}", "blockSubscriber", tagSubscribers, auth.AccessWrite, "Send a subscriber away for a while",
		"His sessions end within two seconds. He need not be registered. 0 seconds: he may come again."), a.block)
}

// key checks what a path names.
func (a *API) key(app, id string) (media.Key, error) {
	if _, err := a.app(app); err != nil {
		return media.Key{}, err
	}
	key, err := media.NewKey(app, id)
	if err != nil {
		return key, problem.New(problem.BadName, err.Error())
	}
	return key, nil
}

func (a *API) rule(app string, do access.Action) (access.Rule, error) {
	s, err := a.app(app)
	if do == access.Publish {
		return access.Rule(s.Access.Publish), err
	}
	return access.Rule(s.Access.Play), err
}

type makeTokenInput struct {
	OfStream
	ExpireDate int64         `query:"expireDate" minimum:"0" maximum:"100000000000" doc:"In seconds since 1970; absent: in an hour."`
	Type       access.Action `query:"type" enum:"play,publish" default:"play"`
	RoomID     string        `query:"roomId" maxLength:"128" doc:"Kept with a one-time token; nothing depends on it."`
}

func (in *makeTokenInput) expires() time.Time {
	if in.ExpireDate == 0 {
		return time.Now().Add(tokenFor)
	}
	return time.Unix(in.ExpireDate, 0)
}

type tokenOutput struct{ Body AccessToken }

func tokenOf(t access.OneTime) AccessToken {
	return AccessToken{TokenID: t.ID, StreamID: t.Stream, ExpireDate: t.Expires.Unix(), Type: t.Type, RoomID: t.Room, Used: t.Session != ""}
}

func (a *API) makeToken(ctx context.Context, in *makeTokenInput) (*tokenOutput, error) {
	key, err := a.key(in.App, in.ID)
	var t access.OneTime
	if err == nil {
		t, err = a.deps.Access.AddToken(ctx, key, in.Type, in.RoomID, in.expires())
	}
	a.record(ctx, "make a token to "+string(in.Type), in.ID, in.App, err)
	return &tokenOutput{tokenOf(t)}, err
}

func (a *API) makeJWT(ctx context.Context, in *makeTokenInput) (*tokenOutput, error) {
	_, err := a.key(in.App, in.ID)
	var token string
	expires := in.expires()
	if err == nil {
		var rule access.Rule
		if rule, err = a.rule(in.App, in.Type); err == nil {
			token, err = a.deps.Access.SignJWT(rule, in.ID, in.Type, expires)
		}
	}
	a.record(ctx, "make a JWT to "+string(in.Type), in.ID, in.App, err)
	return &tokenOutput{AccessToken{TokenID: token, StreamID: in.ID, ExpireDate: expires.Unix(), Type: in.Type}}, err
}

type validateTokenInput struct {
	InApp
	Body AccessToken
}

// validateToken's answer has no success where other servers' has none, too.
func (a *API) validateToken(ctx context.Context, in *validateTokenInput) (*answer, error) {
	key, err := a.key(in.App, in.Body.StreamID)
	if err != nil {
		return nil, err
	}
	if _, err := a.deps.Access.CheckToken(ctx, key, in.Body.Type, in.Body.TokenID); err != nil {
		if p, _ := asProblem(err); p.Code != problem.Unauthorized && p.Code != problem.Forbidden {
			return nil, err
		}
		return &answer{result{Message: err.Error()}}, nil
	}
	return done("the token is good"), nil
}

type tokensOutput struct{ Body []AccessToken }

func (a *API) listTokens(ctx context.Context, in *pageInput) (*tokensOutput, error) {
	out := &tokensOutput{[]AccessToken{}}
	key, err := a.key(in.App, in.ID)
	if err != nil || in.Size == 0 {
		return out, err
	}
	list, _, err := a.deps.Access.Tokens(ctx, key, in.Offset, min(in.Size, maxList))
	for _, t := range list {
		out.Body = append(out.Body, tokenOf(t))
	}
	return out, err
}

func (a *API) deleteTokens(ctx context.Context, in *OfStream) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err == nil {
		_, err = a.deps.Access.DeleteTokens(ctx, key)
	}
	a.record(ctx, "delete all tokens", in.ID, in.App, err)
	return done("the tokens were deleted"), err
}

type ofTokenInput struct {
	OfStream
	TokenID string `path:"tokenId" minLength:"1" maxLength:"256"`
}

func (a *API) deleteToken(ctx context.Context, in *ofTokenInput) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err == nil {
		err = a.deps.Access.DeleteToken(ctx, key, in.TokenID)
	}
	a.record(ctx, "delete a token", in.ID, in.App, err)
	return done("the token was deleted"), err
}

type denyInput struct {
	OfStream
	Body AccessToken
}

func (a *API) denyJWT(ctx context.Context, in *denyInput) (*answer, error) {
	_, err := a.key(in.App, in.ID)
	if err == nil {
		err = a.deps.Access.DenyJWT(ctx, in.App, in.Body.TokenID, time.Unix(in.Body.ExpireDate, 0))
	}
	a.record(ctx, "deny a JWT", in.ID, in.App, err)
	return done("the token is void"), err
}

type addSubscriberInput struct {
	OfStream
	Body AccessSubscriber
}

func (a *API) addSubscriber(ctx context.Context, in *addSubscriberInput) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err == nil {
		b := in.Body
		err = a.deps.Access.AddSubscriber(ctx, key, access.Subscriber{ID: b.SubscriberID, Name: b.SubscriberName, Secret: b.B32Secret, Type: b.Type, Limit: b.Limit,
			Period: time.Duration(b.Period) * time.Second})
	}
	a.record(ctx, "add a subscriber", in.ID+" "+in.Body.SubscriberID, in.App, err)
	return done("the subscriber was added"), err
}

type subscribersOutput struct{ Body []AccessSubscriber }

func (a *API) listSubscribers(ctx context.Context, in *pageInput) (*subscribersOutput, error) {
	out := &subscribersOutput{[]AccessSubscriber{}}
	key, err := a.key(in.App, in.ID)
	if err != nil || in.Size == 0 {
		return out, err
	}
	list, _, err := a.deps.Access.Subscribers(ctx, key, in.Offset, min(in.Size, maxList))
	if err != nil {
		return nil, err
	}
	connected, err := a.deps.Access.Connections(ctx, key, list)
	for i, s := range list {
		w := AccessSubscriber{SubscriberID: s.ID, SubscriberName: s.Name, StreamID: s.Stream, B32Secret: s.Secret, Type: s.Type, Limit: s.Limit,
			Connections: connected[i], Connected: connected[i] > 0, BlockedType: s.Blocked, Period: int(s.Period.Seconds())}
		if !s.BlockedUntil.IsZero() {
			w.BlockedUntil = s.BlockedUntil.UnixMilli()
		}
		out.Body = append(out.Body, w)
	}
	return out, err
}

// OfSubscriber names a subscriber of a stream.
type OfSubscriber struct {
	OfStream
	Subscriber string `path:"subscriberId" minLength:"1" maxLength:"128"`
}

type codeInput struct {
	OfSubscriber
	Type access.Action `query:"type" enum:"play,publish" default:"play"`
}

func (a *API) code(ctx context.Context, in *codeInput) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err != nil {
		return nil, err
	}
	rule, err := a.rule(in.App, in.Type)
	if err != nil {
		return nil, err
	}
	code, err := a.deps.Access.Code(ctx, rule, key, in.Subscriber, in.Type)
	a.record(ctx, "show a subscriber's code", in.ID+" "+in.Subscriber, in.App, err)
	return &answer{result{Success: true, DataID: code}}, err
}

func (a *API) deleteSubscribers(ctx context.Context, in *OfStream) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err == nil {
		_, err = a.deps.Access.DeleteSubscribers(ctx, key)
	}
	a.record(ctx, "delete all subscribers", in.ID, in.App, err)
	return done("the subscribers were deleted"), err
}

func (a *API) deleteSubscriber(ctx context.Context, in *OfSubscriber) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err == nil {
		err = a.deps.Access.DeleteSubscriber(ctx, key, in.Subscriber)
	}
	a.record(ctx, "delete a subscriber", in.ID+" "+in.Subscriber, in.App, err)
	return done("the subscriber was deleted"), err
}

type blockInput struct {
	OfSubscriber
	Seconds int            `path:"seconds" minimum:"0" maximum:"157680000"`
	Type    access.Blocked `path:"type" enum:"publish,play,publish_play"`
}

func (a *API) block(ctx context.Context, in *blockInput) (*answer, error) {
	key, err := a.key(in.App, in.ID)
	if err == nil {
		err = a.deps.Access.Block(ctx, key, in.Subscriber, in.Type, time.Duration(in.Seconds)*time.Second)
	}
	a.record(ctx, "block a subscriber", in.ID+" "+in.Subscriber+" "+string(in.Type), in.App, err)
	return done("the subscriber is blocked"), err
}
