-- The privileged half of a script's runtime: it runs first, once, and hands the script an environment of its own.
-- Everything that the script could reach and that could escape, block or grow without bound is absent or wrapped here.
-- Limits and traps: docs/decisions/0013-scripts.md.

local limits = ...
local MEMORY_ERROR, OVERRUN = 'not enough memory', 'deadline'
local PATTERNS_REMEMBERED_MAX = 256

local assert, error, next, pcall, rawget, select, tostring, type =
  assert, error, next, pcall, rawget, select, tostring, type
local clock, count, getinfo, getmetatable, load, setmetatable, sethook, tonumber =
  os.clock, collectgarbage, debug.getinfo, getmetatable, load, setmetatable, debug.sethook, tonumber
local byte, find, format, gmatch, gsub, match, rep, sub =
  string.byte, string.find, string.format, string.gmatch, string.gsub, string.match, string.rep, string.sub
local concat, floor, insert, sort = table.concat, math.floor, table.insert, table.sort

jit.off() -- hooks do not fire in compiled code
jit.flush()
count('setpause', 110) -- memory is limited: collect before garbage doubles it

-- Budget of one call -------------------------------------------------------------------------------------------

local deadline, spent, hooks, interval = 0, nil, 0, limits.hook_instructions
local hook, is_ours

local function stop()
  spent = OVERRUN
  error(OVERRUN, 0)
end

local function check_clock()
  if clock() > deadline then stop() end
end

-- One instruction costs a millisecond for each MiB of a text that it joins, compares or reads as a number. The memory
-- that is held bounds the longest text, so the more is held the fewer instructions run before the next look. Asking for
-- the time costs more than the instructions between two hooks, so while they are many it is asked now and then only.
hook = function()
  local wanted = floor(limits.hook_kib / count('count'))
  wanted = wanted > limits.hook_instructions and limits.hook_instructions or wanted < 1 and 1 or wanted
  if wanted ~= interval then
    interval = wanted
    sethook(hook, '', interval)
  end
  hooks = hooks + 1
  if hooks >= limits.hooks_per_clock or interval < limits.hook_instructions then
    hooks = 0
    if clock() > deadline and not is_ours[getinfo(2, 'f').func] then stop() end
  end
end

local function settle(ok, ...)
  if not ok and ... == MEMORY_ERROR then spent = MEMORY_ERROR end
  return ok, ...
end

local nested = 0 -- pcalls inside each other

local function within_budget(seconds, call, ...)
  if seconds > 0 then deadline, spent, hooks = clock() + seconds, nil, 0 end
  nested = 0
  sethook(hook, '', interval)
  local ok, result = settle(pcall(call, ...))
  sethook()
  if spent then return false, spent end
  if not ok then return false, type(result) == 'string' and result or 'an error that is a ' .. type(result) end
  return true, result
end

-- Behind the pcall of within_budget nothing would catch what the hook raises.
is_ours = {[settle] = true, [within_budget] = true}

-- A budget that is spent cannot be swallowed: every pcall of the script raises it again.
local function pass_on(ok, ...)
  nested = nested - 1
  if not ok and ... == MEMORY_ERROR then spent = MEMORY_ERROR end
  if spent then error(spent, 0) end
  return ok, ...
end

local function guarded_pcall(call, ...)
  if nested >= limits.pcall_depth then error('more than ' .. limits.pcall_depth .. ' pcalls inside each other', 2) end
  nested = nested + 1
  return pass_on(pcall(call, ...))
end

-- Text: no hook fires inside the C functions, so what they may cost is bounded before the call -------------------

local function short(text)
  local kind = type(text)
  if kind ~= 'string' and kind ~= 'number' then error('text expected, got ' .. kind, 3) end
  if kind == 'string' and #text > limits.text_bytes then
    error(format('text of %d bytes; %d are allowed', #text, limits.text_bytes), 3)
  end
  return kind == 'string' and text or tostring(text)
end

local function shortened(call)
  return function(text, ...) return call(short(text), ...) end
end

-- Repetitions of a pattern, and the longest stretch of it between two of them: what decides its worst case.
local function weigh(pattern)
  local place, size, repeats, stretch, longest = 1, #pattern, 0, 0, 1
  while place <= size do
    local from, sign = place, sub(pattern, place, place)
    if sign == '%' then
      local escaped = sub(pattern, place + 1, place + 1)
      place = place + (escaped == 'b' and 4 or 2)
      if escaped == 'b' or find(escaped, '%d') then repeats = repeats + 1 end
    elseif sign == '[' then
      local last = find(pattern, ']', place + (sub(pattern, place + 1, place + 1) == '^' and 3 or 2), true)
      while last and sub(pattern, last - 1, last - 1) == '%' do last = find(pattern, ']', last + 1, true) end
      place = (last or size) + 1
    else
      place = place + 1
    end
    stretch = stretch + place - from
    if stretch > longest then longest = stretch end
    local suffix = sub(pattern, place, place)
    if sign ~= '(' and sign ~= ')' and suffix ~= '' and find(suffix, '[*+?-]') then
      repeats, stretch, place = repeats + 1, 0, place + 1
    end
  end
  return {repeats, longest, sub(pattern, 1, 1) == '^'}
end

local weighed, weighed_count = {}, 0

local function check_pattern(text, pattern, is_anchored_allowed)
  if type(pattern) ~= 'string' then error('pattern expected, got ' .. type(pattern), 3) end
  if #pattern > limits.pattern_bytes then
    error(format('pattern of %d bytes; %d are allowed', #pattern, limits.pattern_bytes), 3)
  end
  local weight = weighed[pattern]
  if not weight then
    if weighed_count >= PATTERNS_REMEMBERED_MAX then weighed, weighed_count = {}, 0 end
    weight = weigh(pattern)
    weighed[pattern], weighed_count = weight, weighed_count + 1
  end
  -- The ways to share n bytes among k repetitions, and a first byte where the pattern may begin anywhere: C(n + k, k).
  local choices = weight[1] + (is_anchored_allowed and weight[3] and 0 or 1)
  local steps = weight[2]
  for choice = 1, choices do steps = steps * (#text + choice) / choice end
  if steps > limits.pattern_steps then
    error('pattern may take too long on a text of ' .. #text .. ' bytes; anchor it with ^ or use fewer of * + - ?', 3)
  end
end

local function timed(...)
  check_clock()
  return ...
end

local safe_string = {
  byte = shortened(byte), char = string.char, len = shortened(string.len), lower = shortened(string.lower),
  reverse = shortened(string.reverse), sub = shortened(sub), upper = shortened(string.upper),
  format = function(form, ...) return timed(format(short(form), ...)) end,
  rep = function(text, times)
    text, times = short(text), tonumber(times) or error('a number of times expected', 2)
    if #text * times > limits.text_bytes then
      error(format('a text of more than %d bytes', limits.text_bytes), 2)
    end
    return rep(text, times)
  end,
  find = function(text, pattern, start, is_plain)
    text = short(text)
    if is_plain then
      if type(pattern) ~= 'string' then error('text expected, got ' .. type(pattern), 2) end
      if #text * #pattern > limits.pattern_steps then error('texts too long to search', 2) end
    else
      check_pattern(text, pattern, true)
    end
    return timed(find(text, pattern, start, is_plain))
  end,
  match = function(text, pattern, start)
    text = short(text)
    check_pattern(text, pattern, true)
    return timed(match(text, pattern, start))
  end,
  gmatch = function(text, pattern)
    text = short(text)
    check_pattern(text, pattern, false)
    local following = gmatch(text, pattern)
    return function() return timed(following()) end
  end,
  gsub = function(text, pattern, replacement, times)
    text = short(text)
    check_pattern(text, pattern, true)
    return timed(gsub(text, pattern, replacement, times))
  end,
}

-- The environment ----------------------------------------------------------------------------------------------

local function copy(library, ...)
  local copied = {}
  for place = 1, select('#', ...) do
    local name = select(place, ...)
    copied[name] = assert(library[name], name)
  end
  return copied
end

local function bounded_list(call, entries)
  return function(list, ...)
    if type(list) ~= 'table' then error('table expected, got ' .. type(list), 2) end
    if #list > entries then error('a list of more than ' .. entries .. ' entries', 2) end
    return timed(call(list, ...))
  end
end

local lines, line_count = {}, 0

local function log(text)
  if line_count < limits.log_lines then
    lines[line_count + 1] = sub(type(text) == 'string' and text or tostring(text), 1, limits.log_bytes)
  end
  line_count = line_count + 1
end

local safe_table = {
  concat = bounded_list(concat, limits.list_entries), insert = bounded_list(insert, limits.list_entries),
  remove = bounded_list(table.remove, limits.list_entries), maxn = bounded_list(table.maxn, limits.list_entries),
  sort = bounded_list(sort, limits.sort_entries), -- quadratic at worst, and no hook fires between numbers
}

local env = {
  assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, rawequal = rawequal, rawget = rawget,
  rawset = rawset, select = select, setmetatable = setmetatable, tostring = tostring, type = type,
  unpack = unpack, pcall = guarded_pcall, log = log, string = safe_string, table = safe_table,
  tonumber = function(value, base) return tonumber(type(value) == 'string' and short(value) or value, base) end,
  getmetatable = function(value) return type(value) == 'table' and getmetatable(value) or nil end,
  math = copy(math, 'abs', 'acos', 'asin', 'atan', 'atan2', 'ceil', 'cos', 'cosh', 'deg', 'exp', 'floor', 'fmod',
    'frexp', 'huge', 'ldexp', 'log', 'log10', 'max', 'min', 'modf', 'pi', 'pow', 'rad', 'sin', 'sinh', 'sqrt', 'tan',
    'tanh'), -- no random: the same frames give the same answer
  bit = copy(bit, 'arshift', 'band', 'bnot', 'bor', 'bswap', 'bxor', 'lshift', 'rol', 'ror', 'rshift', 'tobit', 'tohex'),
  GOOD = 0, UNCERTAIN = 0x40000000, BAD = 0x80000000,
}
env._G = env
getmetatable('').__index = safe_string
getmetatable('').__metatable = false

-- Frames in, frames out ----------------------------------------------------------------------------------------

local names, units, only_output
local on_frame, on_tick, on_bad
local out

local function emit(frame, row, quality, time)
  if type(frame) ~= 'table' then error('a frame must be a table, got ' .. type(frame), 0) end
  local tag, value = rawget(frame, 'tag') or only_output, rawget(frame, 'value')
  if type(tag) ~= 'string' then error('a frame without tag, and more than one output is declared', 0) end
  local own_quality, own_time = rawget(frame, 'quality'), rawget(frame, 'time')
  if own_quality ~= nil then quality = own_quality end
  if own_time ~= nil then time = own_time end
  if type(quality) ~= 'number' or quality < 0 or quality >= 4294967296 or quality ~= floor(quality) then
    error('quality of ' .. sub(tag, 1, 256) .. ' is no StatusCode; use GOOD, UNCERTAIN or BAD', 0)
  end
  if type(time) ~= 'number' or time ~= time or time < 0 or time > limits.time_max then
    error('time of ' .. sub(tag, 1, 256) .. ' must be seconds since 1970', 0)
  end
  local kind = type(value)
  if value == nil and quality < 0x80000000 then error('frame of ' .. sub(tag, 1, 256) .. ' has no value', 0) end
  if kind ~= 'nil' and kind ~= 'number' and kind ~= 'boolean' and kind ~= 'string' then
    error('value of ' .. sub(tag, 1, 256) .. ' is a ' .. kind .. '; a number, boolean or text is wanted', 0)
  end
  if kind == 'string' and #value > limits.text_bytes then
    error(format('value of %s is a text of %d bytes; %d are allowed', sub(tag, 1, 256), #value, limits.text_bytes), 0)
  end
  local place = out.rows + 1
  if place > limits.output_rows then error('more than ' .. limits.output_rows .. ' frames out of one batch', 0) end
  out.rows = place
  out.tag[place], out.value[place], out.quality[place], out.time[place], out.row[place] =
    tag, value == nil and 0 or value, quality, time, row
end

local function emit_all(answer, row, quality, time)
  if answer == nil then return end
  if type(answer) ~= 'table' or rawget(answer, 1) == nil then return emit(answer, row, quality, time) end
  for place = 1, #answer do emit(rawget(answer, place), row, quality, time) end
end

local function run_rows(rows, tags, values, qualities, times)
  for row = 1, rows do
    local tag, quality, time = tags[row], qualities[row], times[row]
    local call = quality < 0x80000000 and on_frame or on_bad
    if call then
      local value
      if quality < 0x80000000 then value = values[row] end
      local frame = {tag = names[tag], value = value, quality = quality, time = time, unit = units[tag]}
      emit_all(call(frame), row, quality, time)
    end
  end
end

local function fresh()
  out = {rows = 0, tag = {}, value = {}, quality = {}, time = {}, row = {}}
  lines, line_count = {}, 0
end

local function answer_of(ok, problem)
  out.problem = not ok and problem or nil
  out.lines, out.line_count = lines, line_count
  return out
end

-- State: plain data as text, keys in order, so that the same state has the same bytes -----------------------------

local entries = 0 -- of the value that is being written

local function plain(value, depth, parts, seen)
  local kind = type(value)
  if kind == 'boolean' then
    parts[#parts + 1] = value and 't' or 'f'
  elseif kind == 'number' then
    parts[#parts + 1] = format('n%.17g;', value)
  elseif kind == 'string' then
    if #value > limits.text_bytes then error('state holds a text of ' .. #value .. ' bytes', 0) end
    parts[#parts + 1] = 's' .. #value .. ':' .. value
  elseif kind ~= 'table' then
    error('state holds a ' .. kind .. '; numbers, booleans, texts and tables of them can be kept', 0)
  elseif depth >= limits.state_depth or seen[value] then
    error(seen[value] and 'state holds one table twice' or 'state is nested too deep', 0)
  else
    seen[value] = true
    local texts, numbers = {}, {}
    for key in next, value do
      local list = type(key) == 'string' and texts or type(key) == 'number' and numbers
      if not list then error('state has a key that is a ' .. type(key), 0) end
      list[#list + 1] = key
      entries = entries + 1
      if entries > limits.state_entries then error('state holds more than ' .. limits.state_entries .. ' entries', 0) end
    end
    sort(numbers)
    sort(texts)
    parts[#parts + 1] = '{'
    for _, list in ipairs({numbers, texts}) do
      for _, key in ipairs(list) do
        plain(key, depth, parts, seen)
        plain(rawget(value, key), depth + 1, parts, seen)
      end
    end
    parts[#parts + 1] = '}'
  end
end

local function plain_text(value)
  local parts = {}
  entries = 0
  plain(value, 0, parts, {})
  local size = 0
  for _, part in ipairs(parts) do size = size + #part end
  if size > limits.state_bytes then error(format('state of %d bytes; %d are allowed', size, limits.state_bytes), 0) end
  return concat(parts)
end

-- What the gateway calls -----------------------------------------------------------------------------------------

return {
  -- problem, or nil: the script has run and its functions are known
  start = function(seconds, text, name)
    fresh()
    local chunk, problem = load(text, '@' .. name, 't', env)
    if not chunk then return problem end
    local ok, result = within_budget(seconds, chunk)
    if not ok then return result end
    on_frame, on_tick, on_bad = rawget(env, 'on_frame'), rawget(env, 'on_tick'), rawget(env, 'on_bad')
    if type(result) == 'function' then on_frame = result end
    if type(on_frame) ~= 'function' then return name .. ': defines no function on_frame(frame), and returns none' end
    for handler, call in next, {on_tick = on_tick, on_bad = on_bad} do
      if type(call) ~= 'function' then return name .. ': ' .. handler .. ' must be a function' end
    end
    return nil
  end,
  -- plain text of a declaration: `outputs`, `state_version`; read like state, so that nothing of it can act
  declared = function(seconds, name)
    return within_budget(seconds, function()
      local value = rawget(env, name)
      return value ~= nil and plain_text(value)
    end)
  end,
  bind = function(input_names, input_units, output) names, units, only_output = input_names, input_units, output end,
  rows = function(seconds, rows, tags, values, qualities, times)
    fresh()
    return answer_of(within_budget(seconds, run_rows, rows, tags, values, qualities, times))
  end,
  tick = function(seconds, now)
    fresh()
    if not on_tick then return answer_of(true) end
    return answer_of(within_budget(seconds, function() emit_all(on_tick(now), 0, 0, now) end))
  end,
  -- bounded by what state may hold, and nothing of the script runs: it needs no hook
  save = function()
    local state = rawget(env, 'state')
    if state == nil then return true, '' end
    return settle(pcall(plain_text, state))
  end,
  restore = function(state) env.state = state end,
}
