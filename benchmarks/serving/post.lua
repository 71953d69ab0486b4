-- For wrk: POST the bodies of a file in turn, and print the result as one line of JSON.
-- Arguments: the file (each body preceded by its length in four bytes, little-endian), then headers, `name: value`.
local requests, at = {}, 0

function init(args)
  for i = 2, #args do
    local name, value = args[i]:match("^(.-): (.*)$")
    wrk.headers[name] = value
  end
  local file = assert(io.open(args[1], "rb"))
  local data = file:read("*a")
  file:close()
  local i = 1
  while i <= #data do
    local a, b, c, d = data:byte(i, i + 3)
    local length = a + 256 * (b + 256 * (c + 256 * d))
    requests[#requests + 1] = wrk.format("POST", nil, nil, data:sub(i + 4, i + 3 + length))
    i = i + 4 + length
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\nwrk {"requests": %d, "microseconds": %d, "p50_us": %.0f, "p99_us": %.0f, "max_us": %.0f, ' ..
    '"bad_status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.status, e.connect, e.read, e.write, e.timeout))
end
