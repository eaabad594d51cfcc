-- What expressions are run by; mapper/lua.py loads it once per machine. No expression sees anything but `functions`.

local ffi, bits, jit = require 'ffi', require 'bit', jit
local load, pcall, tonumber, tostring, error = load, pcall, tonumber, tostring, error
local floor, ceil, math_min, math_max = math.floor, math.ceil, math.min, math.max
local numbers, integers = ffi.typeof 'double*', ffi.typeof 'int32_t*'
getmetatable('').__index = nil

-- A result is no longer than what is read for it, so the texts that one expression reads are counted.
local TEXTS_BYTES_MAX = 65536
local bytes_read = 0

local function unsigned(number) return number % 4294967296 end
local functions = {
  abs = math.abs, floor = floor, ceil = ceil, min = math_min, max = math_max, sqrt = math.sqrt, exp = math.exp,
  log = math.log, log10 = math.log10, sin = math.sin, cos = math.cos, tan = math.tan, asin = math.asin,
  acos = math.acos, atan = math.atan, atan2 = math.atan2, pow = math.pow, pi = math.pi,
  round = function(x) if x < 0 then return ceil(x - 0.5) end return floor(x + 0.5) end,
  clamp = function(x, low, high) if x < low then return low elseif x > high then return high end return x end,
  bit = function(x, place) return floor(x / 2 ^ place) % 2 == 1 end,
  band = function(a, b) return unsigned(bits.band(a, b)) end,
  bor = function(a, b) return unsigned(bits.bor(a, b)) end,
  bxor = function(a, b) return unsigned(bits.bxor(a, b)) end,
  lshift = function(a, places) return places >= 32 and 0 or unsigned(bits.lshift(a, places)) end,
  rshift = function(a, places) return places >= 32 and 0 or unsigned(bits.rshift(a, places)) end,
  number = function(text)
    local found = tonumber(text)
    if found == nil then error('"' .. text .. '" is no number', 0) end
    return found
  end,
  iif = function(condition, a, b) if condition then return a end return b end,
  -- not for those who write expressions: before each, and around every text that it reads
  begin = function() bytes_read = 0 end,
  text = function(read)
    bytes_read = bytes_read + #read
    if bytes_read > TEXTS_BYTES_MAX then error('it reads texts of more than ' .. TEXTS_BYTES_MAX .. ' bytes', 0) end
    return read
  end,
}
local names = {}
for name in pairs(functions) do names[#names + 1] = name end
local head = 'local F = ...\nlocal ' .. table.concat(names, ',') .. ' = F.' .. table.concat(names, ',F.') .. '\n'

local function compile(source)
  local chunk, problem = load(head .. 'return ' .. source, '=expr', 't', {})
  if not chunk then return nil, problem end
  return chunk(functions)
end
local function at(address) return ffi.cast(numbers, address) end
local function copy(count, places, from, to)
  for i = 1, count do local place = places[i]; to[place] = from[place] end
end

-- Assignments of different shapes, one after the other, for the interpreter: it is several times quicker on its own
-- tables than on pointers.
local function fuse(source, places, slots, v, x, r, t, y, s)
  local make, problem = compile('function(v, x, r, t, y, s) return function()\n' .. source .. '\nend end')
  if not make then return nil, problem end
  local count, slot_count = #places, #slots
  local own, read, given = {}, {}, {}
  v, x, r = at(v), at(x), at(r)
  for i = 1, count do given[places[i]] = 0 end
  local straight = make(own, read, given, t, y, s)
  jit.off(straight)
  local function call()
    copy(count, places, v, own)
    copy(slot_count, slots, x, read)
    straight()
    copy(count, places, given, r)
  end
  jit.off(call)
  return call
end

-- An operator over places of one column: source says what place to + i becomes. It is compiled here and now, with a
-- sample that takes each of its branches: a loop that first meets a few rows only would be given up by the compiler.
local WARM_ROWS, WARM_RUNS = 256, 4
local function warm(loop)
  local column, places = ffi.new('double[?]', 2 * WARM_ROWS), ffi.new('int32_t[?]', 3 * WARM_ROWS)
  for i = 0, WARM_ROWS - 1 do
    column[i] = i % 7 - 3
    places[i], places[WARM_ROWS + i], places[2 * WARM_ROWS + i] = i, i * 3 % WARM_ROWS, i * 5 % WARM_ROWS
  end
  local s, a = ffi.cast(numbers, column), ffi.cast(integers, places)
  for _ = 1, WARM_RUNS do loop(WARM_ROWS, s, s, WARM_ROWS, a, a + WARM_ROWS, a + 2 * WARM_ROWS) end
  return loop
end
jit.off(warm)
local operators = {}
local function operator(source)
  local loop = operators[source]
  if not loop then
    local head, tail = 'function(n, s, x, to, a, b, c) for i = 0, n - 1 do s[to + i] = ', ' end end'
    loop = warm(assert(compile(head .. source .. tail)))
    operators[source] = loop
  end
  return loop
end
-- The last loop: what lies at a goes to the results; 0 when all of it is finite, else NaN.
local function finish(n, s, _, to, a)
  local sum = 0
  for i = 0, n - 1 do
    local found = s[a[i]]
    s[to + i] = found
    sum = sum + (found - found)
  end
  return sum
end
local is_finish_warm = false
-- steps: per loop its source, the count of its rows, its first place, and where its three operands begin in places; the
-- last one has no source
local function sweep(column, places, x, steps, count)
  if not is_finish_warm then warm(finish) end
  is_finish_warm = true
  local s, all, loops, counts, firsts, a, b, c = at(column), ffi.cast(integers, places), {}, {}, {}, {}, {}, {}
  x = at(x)
  for step = 1, count do
    local place = (step - 1) * 6
    loops[step] = step < count and operator(steps[place + 1]) or finish
    counts[step], firsts[step] = steps[place + 2], steps[place + 3]
    a[step], b[step], c[step] = all + steps[place + 4], all + steps[place + 5], all + steps[place + 6]
  end
  local last = count - 1
  local function call()
    for step = 1, last do loops[step](counts[step], s, x, firsts[step], a[step], b[step], c[step]) end
    return finish(counts[count], s, x, firsts[count], a[count])
  end
  jit.off(call)
  return call
end

local function each(closures, count)
  local failed = {}
  for place = 1, count do
    local fine, problem = pcall(closures[place])
    if not fine then failed[place] = tostring(problem) end
  end
  return failed
end
local function refusal(why) return function() error(why, 0) end end
return fuse, sweep, each, refusal
