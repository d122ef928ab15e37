-- HAProxy sends a request to the gateway for authorization, with its own HTTP client. Needs HAProxy 2.6 or newer with
-- Lua.
--
--   setenv AKOYA_GATEWAY http://127.0.0.1:9000     (in `global`, first; the gateway's address)
--   lua-load /etc/haproxy/akoya.lua                (in `global`)
--   http-request lua.akoya                         (in the frontend)
--
-- If the request is admitted, the gateway's headers are set on it. Otherwise the client gets the gateway's response, or
-- 503 if there is none.

local gateway = os.getenv("AKOYA_GATEWAY") or error("AKOYA_GATEWAY is not set")
local question = gateway .. "/akoya/forward-auth"
local patience = 15000 -- milliseconds

-- Headers between two hops only (RFC 9110 section 7.6.1), and headers of a body that is not sent along.
local hop = {
    ["connection"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
    ["transfer-encoding"] = true, ["content-length"] = true, ["expect"] = true,
}
-- Only this script describes the request.
local ours = {
    ["host"] = true, ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true, ["x-forwarded-host"] = true,
    ["x-original-method"] = true, ["x-original-uri"] = true, ["x-akoya-answer"] = true,
}

-- HAProxy counts the values of a header from 0, its HTTP client from 1.
local function each(values, act)
    for _, value in pairs(values) do act(value) end
end

local function description(txn, asked)
    local headers = {}
    for name, values in pairs(asked) do
        if not hop[name] and not ours[name] then
            local list = {}
            each(values, function(value) list[#list + 1] = value end)
            headers[name] = list
        end
    end
    local host = asked["host"]
    headers["x-forwarded-method"] = { txn.sf:method() }
    headers["x-forwarded-uri"] = { txn.sf:pathq() }
    if host ~= nil and host[0] ~= nil then headers["x-forwarded-host"] = { host[0] } end
    return headers
end

local function refuse(txn, status, headers, body)
    local reply = txn:reply()
    reply:set_status(status)
    for name, values in pairs(headers) do
        if not hop[name] and name:sub(1, 6) ~= "akoya-" then
            each(values, function(value) reply:add_header(name, value) end)
        end
    end
    if txn.sf:method() ~= "HEAD" then reply:set_body(body) end
    txn:done(reply)
end

local function admit(txn, headers)
    -- The client's cookies without the gateway's session.
    txn.http:req_del_header("cookie")
    for name, values in pairs(headers) do
        if name:sub(1, 6) == "akoya-" or name == "signature" or name == "signature-input" or name == "cookie" then
            each(values, function(value) txn.http:req_add_header(name, value) end)
        elseif name == "x-request-id" then
            each(values, function(value)
                txn.http:req_set_header(name, value)
                txn:set_var("txn.akoya_request_id", value)
            end)
        end
    end
end

core.register_action("akoya", { "http-req" }, function(txn)
    local asked = txn.http:req_get_headers()
    local answered, answer = pcall(function()
        return core.httpclient():get({ url = question, headers = description(txn, asked), timeout = patience })
    end)
    if not answered or answer == nil or answer.status == nil or answer.status < 200 then
        refuse(txn, 503, { ["content-type"] = { "application/problem+json" }, ["cache-control"] = { "no-store" } },
            '{"type":"about:blank","title":"The service is not available right now","status":503}')
    elseif answer.status == 200 then
        admit(txn, answer.headers)
    else
        refuse(txn, answer.status, answer.headers, answer.body)
    end
end, 0)
