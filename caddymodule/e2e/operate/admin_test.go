package operate

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestAdmin_SeesAndSteersStreams in a Caddy that runs as a user runs it.
func TestAdmin_SeesAndSteersStreams(t *testing.T) {
	site := harness.RoomSite("", harness.StartTickingBackend(t))
	server := harness.StartAdminCaddy(t, site)
	client := harness.NewClient(t, harness.HTTP1)
	feed := client.Open(t, server.Admin+"/sse_guard/events")
	require.Equal(t, http.StatusOK, feed.Status)
	require.Empty(t, server.Streams(t, ""))

	ann := client.Open(t, server.URL+"/events/a;token=secret?user=ann&room=one&token=token-of-ann", harness.WithClient("phone"))
	harness.RequireLive(t, ann)
	bob := client.Open(t, server.URL+"/events?user=bob&room=two", harness.WithBearer("token-of-bob"))
	harness.RequireLive(t, bob)
	require.Len(t, server.Streams(t, ""), 2)
	rows := server.Streams(t, "label.room=one")
	require.Len(t, rows, 1)
	row := rows[0]
	require.Equal(t, "/events/a", row.Path)
	require.Equal(t, "HTTP/1.1", row.Protocol)
	require.Equal(t, map[string]string{"room": "one"}, row.Labels)
	require.Equal(t, "live", row.State)
	require.Equal(t, "default", row.Zone)
	require.NotZero(t, row.Events)
	require.Empty(t, row.Subject, "nobody has verified who it is")
	require.True(t, net.ParseIP(row.RemoteIP).IsLoopback(), row.RemoteIP)
	for _, hash := range []string{row.Key, row.Token, row.Client} {
		require.Regexp(t, `^[0-9a-f]{16}$`, hash)
	}
	require.Contains(t, feed.NextOfType(t, "admitted").Data, row.ID)

	require.Equal(t, 1, server.Notify(t, `{"select":{"labels":{"room":"two"}},"event":"MAINTENANCE","data":"at\nnoon"}`))
	require.Equal(t, "at\nnoon", bob.NextOfType(t, "MAINTENANCE").Data)

	require.Equal(t, 1, server.End(t, `{"select":{"raw_token":"Bearer token-of-bob"},"message":"Call us.","deny":"10m"}`))
	notice := harness.RequireEnded(t, bob, harness.Revoked, "revoked")
	require.Equal(t, "Call us.", harness.NoticeOf(t, notice).Message)
	require.Contains(t, notice.ID, "sse-guard", "it is told to stay away")
	harness.RequireDenied(t, server.URL+"/events?user=bob", harness.WithBearer("token-of-bob"))
	require.Contains(t, feed.NextOfType(t, "ended").Data, `"reason":"revoked"`)

	// A reload ends neither the streams nor the denials; the feed ends with the server
	// that it is of, which does not wait for it in vain.
	server.Reload(t, site+"\nheader X-New yes")
	require.NoError(t, feed.Wait(t).Err)
	harness.RequireLive(t, ann)
	after := server.Streams(t, "")
	require.Len(t, after, 1)
	require.Equal(t, row.ID, after[0].ID)
	harness.RequireDenied(t, server.URL+"/events?user=bob", harness.WithBearer("token-of-bob"))

	require.Equal(t, 1, server.End(t, `{"select":{"key_parts":["ann"],"raw_client":"phone"}}`))
	notice = harness.RequireEnded(t, ann, harness.Revoked, "revoked")
	back, err := client.Connect(t.Context(), server.URL+"/events?user=ann&token=token-of-ann", notice.ID)
	require.NoError(t, err)
	t.Cleanup(back.Close)
	require.Equal(t, http.StatusNoContent, back.Status, "its EventSource comes back, and is told to close")
	harness.RequireLive(t, client.Open(t, server.URL+"/events?user=ann&token=token-of-ann"))

	server.RequireNotTold(t, "", "token-of-bob", "phone")
	for _, line := range server.HandlerLogs(t) {
		require.NotContains(t, line.Msg, "stopping current admin endpoint", line.Raw)
	}
}

// TestAdmin_OfAVerifiedUser ends all that the user has, whatever the token.
func TestAdmin_OfAVerifiedUser(t *testing.T) {
	issuer := harness.NewIssuer(t, "HS256")
	server := harness.StartAdminCaddy(t, "sse_guard {\nkey {sse_guard.claims.sub} {path}\njwt {\n"+issuer.KeyOption(t)+"\n}\n}\nreverse_proxy "+harness.StartTickingBackend(t))
	client := harness.NewClient(t, harness.HTTP1)
	bearer := func(sub string) harness.RequestOption {
		return harness.WithBearer(issuer.Token(t, harness.WithSub(sub)))
	}
	one := client.Open(t, server.URL+"/events/1", bearer("ann"))
	harness.RequireLive(t, one)
	other := client.Open(t, server.URL+"/events/2", bearer("ann"))
	harness.RequireLive(t, other)
	bob := client.Open(t, server.URL+"/events/1", bearer("bob"))
	harness.RequireLive(t, bob)

	require.Len(t, server.Streams(t, "subject=ann"), 2)
	iss := issuerOf(t, issuer.Token(t))
	require.Equal(t, 2, server.End(t, `{"select":{"key_parts":[{"sub":"ann","iss":"`+iss+`"},"/events/1"]},"deny":"1m"}`), "one is selected, and the user is denied")
	harness.RequireEnded(t, one, harness.Revoked, "revoked")
	harness.RequireEnded(t, other, harness.Revoked, "revoked")
	harness.RequireDenied(t, server.URL+"/events/3", bearer("ann"))
	harness.RequireLive(t, bob)
}

// issuerOf reads the claim iss of a token.
func issuerOf(t testing.TB, token string) string {
	t.Helper()
	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(token, claims)
	require.NoError(t, err)
	iss, _ := claims["iss"].(string)
	return iss
}

// TestAdmin_ParkedStreamsAreLikeOthers: they are listed, told, and ended.
func TestAdmin_ParkedStreamsAreLikeOthers(t *testing.T) {
	server := harness.StartAdminCaddy(t, harness.RoomSite("policy reject\non_reject park", harness.StartTickingBackend(t)))
	client := harness.NewClient(t, harness.HTTP1)
	harness.RequireLive(t, client.Open(t, server.URL+"/events?user=ann&room=one"))
	parked := client.Open(t, server.URL+"/events?user=ann&room=two")
	parked.NextOfType(t, harness.DuplicateSession)
	require.Len(t, server.Streams(t, "state=parked&label.room=two"), 1)
	require.Equal(t, 1, server.Notify(t, `{"select":{"state":"parked"},"event":"HI","data":"you wait"}`))
	require.Equal(t, "you wait", parked.NextOfType(t, "HI").Data)
	require.Equal(t, 1, server.End(t, `{"select":{"state":"parked"}}`))
	harness.RequireEnded(t, parked, harness.Revoked, "revoked")
}

// TestAdmin_HealthWhileCaddyStops is what a load balancer asks for.
func TestAdmin_HealthWhileCaddyStops(t *testing.T) {
	server := harness.StartAdminCaddy(t, "sse_guard {\ndrain 10s\n}\nreverse_proxy "+harness.StartTickingBackend(t), "grace_period 30s")
	health := server.Admin + "/sse_guard/health"
	response, body := harness.Get(t, health)
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.JSONEq(t, `{"status":"ok","zones":[{"zone":"default","draining":false,"registry_up":true}]}`, body)
	client := harness.NewClient(t, harness.HTTP1)
	for i := range 90 { // which end one after the other
		client.Open(t, server.URL+"/events", harness.WithBearer(fmt.Sprint("user", i)))
	}
	feed := client.Open(t, server.Admin+"/sse_guard/events")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		server.Stop(t)
	}()
	require.Eventually(t, func() bool {
		response, err := http.Get(health)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		var problem struct {
			Status int
			Zones  []struct{ Draining bool }
		}
		return json.NewDecoder(response.Body).Decode(&problem) == nil && problem.Status == http.StatusServiceUnavailable && problem.Zones[0].Draining
	}, harness.Patience, time.Millisecond)
	<-stopped
	require.NoError(t, feed.Wait(t).Err, "it does not keep Caddy from stopping")
}

// TestREADME_AdminAPI runs the commands of the section.
func TestREADME_AdminAPI(t *testing.T) {
	issuer := harness.NewIssuer(t, "HS256")
	server := harness.StartAdminCaddy(t, "sse_guard {\nlabel room {query.room}\njwt {\n"+issuer.KeyOption(t)+"\n}\n}\nreverse_proxy "+harness.StartTickingBackend(t))
	client := harness.NewClient(t, harness.HTTP1)
	stream := client.Open(t, server.URL+"/events?room=one", harness.WithBearer(issuer.Token(t, harness.WithSub("alice"))))
	harness.RequireLive(t, stream)
	for _, test := range []struct{ command, want string }{
		{"curl 'http://localhost:2019/sse_guard/streams?", `"labels":{"room":"one"}`},
		{"curl http://localhost:2019/sse_guard/stats", `"room":{"values":{"one":1},"others":0}`},
		{"curl -f http://localhost:2019/sse_guard/health", `"status":"ok"`},
		{`curl -H 'Content-Type: application/json' -d '{"select": {}, "all": true, "event"`, `{"notified":1}`},
		{`curl -H 'Content-Type: application/json' -d '{"select": {"raw_token"`, `{"ended":0}`},
		{`curl -H 'Content-Type: application/json' -d '{"select": {"subject"`, `{"ended":1}`},
	} {
		require.Contains(t, runAtAdmin(t, server, readmeCommand(t, test.command)), test.want, test.command)
	}
	require.NotEmpty(t, stream.NextOfType(t, "MAINTENANCE").Data)
	harness.RequireEnded(t, stream, harness.Revoked, "revoked")

	feed := exec.CommandContext(t.Context(), "sh", "-c", "exec "+atAdmin(server, readmeCommand(t, "curl -sN http://localhost:2019/sse_guard/events")))
	out, err := feed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, feed.Start())
	t.Cleanup(func() {
		_ = feed.Process.Kill()
		_ = feed.Wait()
	})
	told := make(chan bool, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "event: admitted" && lines.Scan() && strings.HasPrefix(lines.Text(), "data: {") {
				told <- true
				return
			}
		}
		told <- false
	}()
	require.Eventually(t, func() bool {
		s := client.Open(t, server.URL+"/events", harness.WithBearer(issuer.Token(t, harness.WithSub("bob"))))
		defer s.Close()
		select {
		case seen := <-told:
			require.True(t, seen, "the feed has ended")
			return true
		case <-time.After(100 * time.Millisecond): // curl may have yet to connect
			return false
		}
	}, harness.Patience, time.Millisecond)
}

// atAdmin is a command of README's, for another admin endpoint.
func atAdmin(server *harness.AdminCaddy, command string) string {
	return strings.ReplaceAll(command, "http://localhost:2019", server.Admin)
}

func runAtAdmin(t testing.TB, server *harness.AdminCaddy, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", atAdmin(server, command)).Output()
	require.NoError(t, err, "%s: %s", command, out)
	return string(out)
}
