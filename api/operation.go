package api

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"sluice/internal/auth"
	"sluice/internal/problem"
	"sluice/internal/trace"
)

// operation is how one is declared.
type operation struct {
	method  string
	path    string
	id      string      // unique; what generated clients call it
	does    string      // in a line
	more    string      // whatever else there is to say
	tag     string      // where it stands in the page
	needs   auth.Action // in the application that the path names as {app}, else on the server
	inSome  bool        // it is enough to be allowed in one application: the operation leaves out the others
	status  int         // of success, if it is not 200
	maxBody int64       // bytes; 0: maxBody
}

// actionExtension names an operation's action in the OpenAPI document.
const actionExtension = "x-sluice-action"

// inSomeExtension marks those that answer who has the action in one application, with what is of that.
const inSomeExtension = "x-sluice-in-some-application"

// register declares an operation. fn returns errors of ours or a *problem.Problem; whatever else it returns is told to the operator only.
func register[I, O any](a *API, op operation, fn func(context.Context, *I) (*O, error)) {
	limit := op.maxBody
	if limit == 0 {
		limit = maxBody
	}
	h := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.does, Description: op.more, Tags: []string{op.tag},
		DefaultStatus: op.status, MaxBodyBytes: limit, Extensions: map[string]any{actionExtension: string(op.needs)},
		Middlewares: huma.Middlewares{a.guard(op)},
	}
	if op.inSome {
		h.Extensions[inSomeExtension] = true
	}
	if op.needs != auth.Public {
		h.Security = []map[string][]string{{"session": {}}, {"key": {}}}
	}
	huma.Register(a.huma, h, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, a.failure(ctx, err, op.id)
		}
		return out, nil
	})
}

// guard lets in who may.
func (a *API) guard(op operation) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if op.needs != auth.Public {
			if err := a.may(ctx, op); err != nil {
				f := a.failure(ctx.Context(), err, op.id)
				if id := auth.Of(ctx.Context()); id.Name != "" && !safe(op.method) {
					a.deps.Accounts.RecordDenied(ctx.Context(), a.entry(ctx.Context(), op.id, ctx.URL().Path, ctx.Param("app"), err))
				}
				for name, values := range f.GetHeaders() {
					ctx.SetHeader(name, values[0])
				}
				ctx.SetHeader("Content-Type", f.ContentType(""))
				ctx.SetStatus(f.GetStatus())
				_ = json.NewEncoder(ctx.BodyWriter()).Encode(f) // a client that went away is its own report
				return
			}
		}
		next(ctx)
	}
}

// may says why not.
func (a *API) may(ctx huma.Context, op operation) error {
	id := auth.Of(ctx.Context())
	if auth.Can(id, op.needs, ctx.Param("app")) || op.inSome && auth.InSome(id, op.needs) {
		return nil
	}
	if id.Name != "" {
		return problem.New(problem.Forbidden, "this needs "+string(op.needs)+", which your role or your key's scope does not have")
	}
	switch why := visitorOf(ctx.Context()).why; {
	case why == nil:
		return problem.New(problem.Unauthorized, "log in, or show an API key")
	case errors.Is(why, auth.ErrBadCredentials):
		return problem.New(problem.Unauthorized, "the session or the API key is none, or has ended")
	default:
		return why
	}
}

// failure is an error as clients see it. It is what huma wants of an error.
type failure struct {
	problem *problem.Problem
	headers http.Header
	errors  []fault
}

// fault is one of the values that were refused.
type fault struct {
	Location string `json:"location,omitempty" doc:"Where it is, such as body.email."`
	Message  string `json:"message"`
}

// problemBody is what is sent of a failure.
type problemBody struct {
	Type    string  `json:"type" doc:"Always about:blank."`
	Title   string  `json:"title"`
	Status  int     `json:"status"`
	Code    string  `json:"code" doc:"A stable name that programs may switch on."`
	Detail  string  `json:"detail" doc:"What was wrong this time and what to do, for people."`
	Success bool    `json:"success" doc:"Always false, for programs that look for a result."`
	Message string  `json:"message" doc:"As detail."`
	Errors  []fault `json:"errors,omitempty" doc:"Each value that was refused."`
}

// failure tells the operator what is not the client's fault.
func (a *API) failure(ctx context.Context, err error, operation string) *failure {
	p, known := asProblem(err)
	if !known {
		trace.Log(ctx, a.log).Error("request failed", "operation", operation, "error", err)
	}
	f := &failure{problem: p, headers: http.Header{}}
	var many *auth.TooManyError
	if errors.As(err, &many) {
		f.headers.Set("Retry-After", strconv.Itoa(int(math.Ceil(many.After.Seconds()))))
	}
	if p.Code.Status == http.StatusUnauthorized {
		f.headers.Set("WWW-Authenticate", "Bearer")
	}
	if p.Code == problem.RegistryAway {
		f.headers.Set("Retry-After", "2")
	}
	return f
}

// fail answers with an error outside of an operation.
func (a *API) fail(ctx context.Context, w http.ResponseWriter, err error) {
	f := a.failure(ctx, err, "")
	for name, values := range f.headers {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", f.ContentType(""))
	w.WriteHeader(f.GetStatus())
	_ = json.NewEncoder(w).Encode(f) // a client that went away is its own report
}

// Error implements error.
func (f *failure) Error() string { return f.problem.Error() }

// GetStatus implements huma.StatusError.
func (f *failure) GetStatus() int { return f.problem.Code.Status }

// GetHeaders implements huma.HeadersError.
func (f *failure) GetHeaders() http.Header { return f.headers }

// ContentType implements huma.ContentTypeFilter.
func (f *failure) ContentType(string) string { return "application/problem+json" }

// MarshalJSON implements json.Marshaler.
func (f *failure) MarshalJSON() ([]byte, error) {
	c := f.problem.Code
	return json.Marshal(problemBody{Type: "about:blank", Title: c.Title, Status: c.Status, Code: c.Name, Detail: f.problem.Detail,
		Message: f.problem.Detail, Errors: f.errors})
}

// ours replaces huma's errors by our own, with a code.
func ours(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code := problem.Invalid
	detail := "a value is not allowed: errors has them all"
	switch e.Status {
	case http.StatusBadRequest:
		code, detail = problem.BadRequest, e.Detail
	case http.StatusRequestEntityTooLarge:
		code, detail = problem.TooLarge, "the body is larger than is taken here"
	case http.StatusUnsupportedMediaType:
		code, detail = problem.WrongMedia, "the body must be application/json"
	case http.StatusRequestTimeout:
		code, detail = problem.Timeout, "the body did not arrive in time"
	case http.StatusUnprocessableEntity:
	default:
		code, detail = problem.Internal, "this is a fault of the server"
	}
	f := &failure{problem: problem.New(code, detail)}
	f.problem.Code.Status = e.Status // it is on its way already
	var first []string
	for _, d := range e.Errors {
		if strings.HasPrefix(d.Message, "json: ") { // it names types of Go
			d.Message = "has a value of another type than it should"
		}
		f.errors = append(f.errors, fault{Location: d.Location, Message: d.Message})
		first = append(first, strings.TrimSpace(d.Location+" "+d.Message))
	}
	if len(first) > 0 && code == problem.Invalid {
		f.problem.Detail = strings.Join(first[:min(3, len(first))], "; ")
	}
	return f, nil
}

// describeErrors puts our problems in the place of huma's in the OpenAPI document.
func (a *API) describeErrors() {
	schemas := a.huma.OpenAPI().Components.Schemas
	ref := schemas.Schema(typeOf[problemBody](), false, "Problem")
	schemas.Map()["ErrorModel"] = ref
}

// visitorKey is the key of contexts.
type visitorKey struct{}

func withVisitor(ctx context.Context, v visitor) context.Context {
	return context.WithValue(ctx, visitorKey{}, v)
}

func visitorOf(ctx context.Context) visitor {
	v, _ := ctx.Value(visitorKey{}).(visitor)
	return v
}

// equal takes the same time whatever is different.
func equal(a, b string) bool { return b != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
