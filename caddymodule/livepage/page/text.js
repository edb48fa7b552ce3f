// The page's words. Every language has the same ones; a test compares them.
export const texts = {
  en: {
    skip: "Skip to the streams", title: "live streams", language: "Language", counts: "Counts",
    opening: "Connecting …", open: "Live", closed: "Connection lost",
    lost: "The connection is lost. What you see is from {time}. Trying again …",
    incomplete: "Not all nodes have answered: {why}", cut: "There are more streams than the table shows; all are counted.",
    live: "live", parked: "parked", untracked: "untracked", ending: "ending",
    chart: "The last ten minutes", chartLive: "live streams", takeovers: "takeovers", refusals: "refusals", chartUntracked: "opened untracked",
    chartAt: "{time}: live {live}, takeovers {takeovers}, refusals {refused}, opened untracked {untracked}",
    chartHere: "of this node only: no page was open",
    streams: "Streams", stream: "Stream", shown: "{shown} of {all}", search: "Search", searchHint: "Search: user, key, address, path, label …",
    state: "State", all: "all states", sortBy: "Sort by", notifyAll: "Notify all …",
    keys: "Keys: arrows choose a stream, Enter shows it, Delete ends it, N notifies it, / searches.",
    nothing: "No streams.", nothingFound: "No stream matches.",
    happened: "What happened", noLines: "No takeovers, refusals or untracked streams so far.",
    id: "ID", key: "Key", subject: "User", zone: "Zone", remote_ip: "Address", path: "Path", since: "Open for", events: "Events", bytes: "Bytes",
    token: "Token", client: "Client", node: "Node", protocol: "Protocol", labels: "Labels", opened: "Opened", last_event_at: "Last event", last_ack_at: "Last acknowledged",
    endDots: "End …", notifyDots: "Notify …", close: "Close", cancel: "Cancel", back: "Back", next: "Next …",
    endTitle: "End streams", notifyTitle: "Notify streams", whom: "Which streams",
    scope_id: "This stream", scope_key: "All of its key", scope_token: "All of its token", scope_subject: "All of the user {subject}", scope_all: "All streams",
    reason: "Reason", reason_revoked: "revoked: it stays away", reason_logout: "logged out", reason_expired: "token expired", reason_max_age: "rotated: it comes back",
    message: "Message to the person (optional)", deny: "Refuse their tokens and users", denyNo: "no", deny10m: "for 10 minutes", deny1h: "for an hour", deny24h: "for 24 hours",
    eventName: "Event name (empty: a message)", data: "Data",
    sureEnd: "This ends {n} streams now. Go on?", sureEnd1: "This ends one stream now. Go on?",
    sureDeny: "Their tokens and users are refused {deny}, and all other streams of these end too.",
    sureNotify: "This sends the event to {n} streams now. Go on?", sureNotify1: "This sends the event to one stream now. Go on?",
    doEnd: "End", doNotify: "Send", ended: "Streams told to end: {n}", notified: "Streams notified: {n}", failed: "It was not done: {why}", noAnswer: "there was no answer",
    tag_superseded: "takeover", tag_refused: "refused", tag_untracked: "untracked", tag_ended: "ended", tag_logout: "logout", tag_dropped: "gap",
    line_superseded: "The stream of {from} was superseded by one of {by}", line_ended: "The stream of {from} ended: {reason}",
    line_logout: "A logout by {from} ended {n} streams", line_dropped: "So much happened that some of it is not shown.",
    outcome_rejected: "The key is full: {from} was rejected", outcome_parked: "The key is full: {from} waits until it is free",
    outcome_damped: "{from} takes the key back again and again, and waits", outcome_outasked: "{from} had asked before the stream that has the key",
    outcome_entombed: "{from} showed the tombstone of an ended stream, and stays away", outcome_unauthorized: "{from} has no good token, or lacks a part of the key",
    outcome_denied: "The token of {from} was logged out or revoked", outcome_draining: "The server stops: {from} is to come back", outcome_unavailable: "{from} could not be judged: the registry, or keys for tokens, cannot be reached",
    cause_method: "Not guarded: requests of this method do not count (option methods)", cause_token: "Not guarded: the request has no token (option token)",
    cause_anonymous: "Not guarded: no token, and none is needed (jwt optional)", cause_key: "Not guarded: a part of the key is empty (option key)", cause_covered: "Not guarded here: a guard further out holds the same key",
    why_revoked: "revoked", why_logout: "logged out", why_expired: "its token expired", why_dead: "its client is gone", why_stalled: "its backend hangs", why_rejected: "rejected",
    why_replaced: "its client opened a newer one", why_fenced: "its node lost touch with the others",
    searchKey: "Show the streams of key {key}",
  },
  ko: {
    skip: "스트림 목록으로 건너뛰기", title: "실시간 스트림", language: "언어", counts: "개수",
    opening: "연결 중…", open: "실시간", closed: "연결 끊김",
    lost: "연결이 끊어졌습니다. 지금 보이는 내용은 {time} 기준입니다. 다시 연결하는 중…",
    incomplete: "응답하지 않은 노드가 있습니다: {why}", cut: "표에 다 표시할 수 없을 만큼 스트림이 많습니다. 개수에는 모두 포함됩니다.",
    live: "활성", parked: "대기", untracked: "추적 안 됨", ending: "종료 중",
    chart: "최근 10분", chartLive: "활성 스트림", takeovers: "인계", refusals: "거부", chartUntracked: "추적 없이 열림",
    chartAt: "{time}: 활성 {live}, 인계 {takeovers}, 거부 {refused}, 추적 없이 열림 {untracked}",
    chartHere: "이 노드만: 열린 페이지 없음",
    streams: "스트림", stream: "스트림", shown: "{all}개 중 {shown}개", search: "검색", searchHint: "검색: 사용자, 키, 주소, 경로, 레이블…",
    state: "상태", all: "모든 상태", sortBy: "정렬", notifyAll: "모두에게 알림…",
    keys: "단축키: 화살표로 선택, Enter 상세 보기, Delete 종료, N 알림, / 검색.",
    nothing: "스트림이 없습니다.", nothingFound: "일치하는 스트림이 없습니다.",
    happened: "최근 사건", noLines: "아직 인계, 거부, 추적되지 않은 스트림이 없습니다.",
    id: "ID", key: "키", subject: "사용자", zone: "존", remote_ip: "주소", path: "경로", since: "연결 시간", events: "이벤트", bytes: "바이트",
    token: "토큰", client: "클라이언트", node: "노드", protocol: "프로토콜", labels: "레이블", opened: "열린 시각", last_event_at: "마지막 이벤트", last_ack_at: "마지막 수신 확인",
    endDots: "종료…", notifyDots: "알림…", close: "닫기", cancel: "취소", back: "뒤로", next: "다음…",
    endTitle: "스트림 종료", notifyTitle: "스트림에 알림", whom: "대상 스트림",
    scope_id: "이 스트림", scope_key: "같은 키 전체", scope_token: "같은 토큰 전체", scope_subject: "사용자 {subject} 전체", scope_all: "모든 스트림",
    reason: "사유", reason_revoked: "회수: 다시 오지 않음", reason_logout: "로그아웃", reason_expired: "토큰 만료", reason_max_age: "교체: 다시 연결함",
    message: "사람에게 보일 메시지 (선택)", deny: "토큰과 사용자 거부", denyNo: "안 함", deny10m: "10분 동안", deny1h: "1시간 동안", deny24h: "24시간 동안",
    eventName: "이벤트 이름 (비우면 message)", data: "데이터",
    sureEnd: "지금 스트림 {n}개를 종료합니다. 계속할까요?", sureEnd1: "지금 스트림 1개를 종료합니다. 계속할까요?",
    sureDeny: "해당 토큰과 사용자는 {deny} 거부되며, 이들의 다른 스트림도 모두 종료됩니다.",
    sureNotify: "지금 스트림 {n}개에 이벤트를 보냅니다. 계속할까요?", sureNotify1: "지금 스트림 1개에 이벤트를 보냅니다. 계속할까요?",
    doEnd: "종료", doNotify: "보내기", ended: "종료를 요청한 스트림: {n}", notified: "알린 스트림: {n}", failed: "처리하지 못했습니다: {why}", noAnswer: "응답이 없습니다",
    tag_superseded: "인계", tag_refused: "거부", tag_untracked: "추적 안 됨", tag_ended: "종료", tag_logout: "로그아웃", tag_dropped: "누락",
    line_superseded: "{from}의 스트림을 {by}의 새 스트림이 넘겨받음", line_ended: "{from}의 스트림 종료: {reason}",
    line_logout: "{from}의 로그아웃으로 스트림 {n}개 종료", line_dropped: "사건이 너무 많아 일부가 표시되지 않았습니다.",
    outcome_rejected: "키가 가득 참: {from} 거절", outcome_parked: "키가 가득 참: {from} 대기 중",
    outcome_damped: "{from}: 키를 되풀이해 빼앗아 대기시킴", outcome_outasked: "{from}: 더 늦게 요청한 스트림이 이미 키를 가짐",
    outcome_entombed: "{from}: 종료된 스트림의 표식을 보여 다시 받지 않음", outcome_unauthorized: "{from}: 올바른 토큰이 없거나 키의 일부가 없음",
    outcome_denied: "{from}의 토큰은 로그아웃되었거나 회수됨", outcome_draining: "서버 종료 중: {from}은(는) 나중에 다시 연결", outcome_unavailable: "{from}: 레지스트리나 토큰 키에 접근할 수 없어 판단하지 못함",
    cause_method: "보호 안 됨: 이 메서드의 요청은 세지 않음 (옵션 methods)", cause_token: "보호 안 됨: 요청에 토큰이 없음 (옵션 token)",
    cause_anonymous: "보호 안 됨: 토큰이 없고 필요하지도 않음 (jwt optional)", cause_key: "보호 안 됨: 키의 일부가 비어 있음 (옵션 key)", cause_covered: "여기서는 보호 안 함: 바깥쪽 가드가 같은 키를 가짐",
    why_revoked: "회수됨", why_logout: "로그아웃", why_expired: "토큰 만료", why_dead: "클라이언트가 사라짐", why_stalled: "백엔드가 멈춤", why_rejected: "거절됨",
    why_replaced: "같은 클라이언트가 새 스트림을 엶", why_fenced: "노드가 다른 노드와 연결을 잃음",
    searchKey: "키 {key}의 스트림 보기",
  },
};

const stored = "sse-guard-language";
let language = "en";

// storage may be forbidden; then the choice lasts as long as the page.
function remembered() {
  try { return localStorage.getItem(stored); } catch { return null; }
}

export function choose(wanted) {
  language = texts[wanted] ? wanted : "en";
  document.documentElement.lang = language;
  for (const e of document.querySelectorAll("[data-t]")) e.textContent = t(e.dataset.t);
  for (const e of document.querySelectorAll("[data-t-placeholder]")) e.placeholder = t(e.dataset.tPlaceholder);
  for (const e of document.querySelectorAll("[data-t-label]")) e.setAttribute("aria-label", t(e.dataset.tLabel));
  return language;
}

export function chooseFirst() {
  return choose(remembered() ?? (navigator.language ?? "").slice(0, 2).toLowerCase());
}

export function remember(wanted) {
  try { localStorage.setItem(stored, wanted); } catch { /* it lasts as long as the page */ }
}

// t is the text of that name, with {words} replaced.
export function t(name, words = {}) {
  const text = texts[language][name] ?? name;
  return text.replace(/\{(\w+)\}/g, (all, word) => words[word] ?? all);
}

// Formats are costly to make, and cheap to use.
const formats = new Map();
function format(kind, make) {
  const name = kind + language;
  if (!formats.has(name)) formats.set(name, make());
  return formats.get(name);
}

export const number = (n) => format("number", () => new Intl.NumberFormat(language)).format(n);
// Nobody counts the events of an untracked stream.
export const eventsOf = (s) => (s.state === "untracked" ? "–" : number(s.events));
export const clock = (ms) => format("clock", () =>
  new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })).format(ms);
export const moment = (ms) => format("moment", () => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" })).format(ms);

// age is a duration in seconds, with its two highest units.
export function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor(s / 3600) % 24}h`;
}

export function size(bytes) {
  let unit = 0;
  while (bytes >= 1000 && unit < 4) { bytes /= 1000; unit++; }
  return `${bytes < 10 && unit > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}
