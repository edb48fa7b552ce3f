package harness

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Spring is a process that runs the Spring Boot application of testdata/spring.
type Spring struct {
	URL  string
	Port int
}

var tomcatLine = regexp.MustCompile(`Tomcat started on port (\d+)`)

// StartSpring starts the application on a free port, which it chooses itself, until the
// test ends.
func StartSpring(t testing.TB) *Spring {
	t.Helper()
	root, err := findRoot()
	require.NoError(t, err)
	dir := filepath.Join(root, ".cache", "spring")
	if _, err := os.Stat(filepath.Join(dir, "classes")); errors.Is(err, fs.ErrNotExist) {
		require.FailNow(t, "no Spring Boot application: run `make deps`", err)
	}
	log := new(lockedBuffer)
	cmd := exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx128m",
		"-cp", filepath.Join(dir, "classes")+":"+filepath.Join(dir, "lib", "*"), "spring.Application",
		"--server.port=0", "--server.address=127.0.0.1", "--server.shutdown=immediate", "--spring.main.banner-mode=off")
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(Patience):
			_ = cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("the Spring Boot application printed:\n%s", log)
		}
	})
	s := new(Spring)
	require.Eventually(t, func() bool {
		found := tomcatLine.FindStringSubmatch(log.String())
		if found == nil {
			return false
		}
		s.Port, _ = strconv.Atoi(found[1])
		return true
	}, 4*Patience, 50*time.Millisecond, "the Spring Boot application does not start")
	s.URL = "http://127.0.0.1:" + strconv.Itoa(s.Port)
	return s
}

// Login opens a session, and returns the cookie that names it.
func (s *Spring) Login(t testing.TB) *http.Cookie {
	t.Helper()
	response := s.get(t, "/login")
	cookies := response.Cookies()
	require.Len(t, cookies, 1)
	require.Equal(t, "JSESSIONID", cookies[0].Name)
	return cookies[0]
}

// Open returns how many emitters the application has that are not over.
func (s *Spring) Open(t testing.TB) int {
	t.Helper()
	response := s.get(t, "/open")
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(body)))
	require.NoError(t, err)
	return n
}

func (s *Spring) get(t testing.TB, path string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	require.NoError(t, err)
	request.Close = true // it is not to be counted among the streams' connections
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	return response
}
