-- wrk: sends one line of $LOAD_HEADERS with each request, in turn: a field, or several with tabs between them; LOAD_BODY=1 adds a body of 1 MiB.
local requests, turn = {}, 0

function init(arguments)
   if os.getenv("LOAD_BODY") then
      wrk.method = "POST"
      wrk.body = string.rep("z", 1048576)
      wrk.headers["Content-Type"] = "application/octet-stream"
   end
   local path = os.getenv("LOAD_HEADERS")
   if not path then
      requests[1] = wrk.format(nil, wrk.path)
      return
   end
   for line in io.lines(path) do
      for field in line:gmatch("[^\t]+") do
         local name, value = field:match("^([^:]+): ?(.*)$")
         wrk.headers[name] = value
      end
      requests[#requests + 1] = wrk.format(nil, wrk.path)
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end
