-- version: 1
-- error: E5054
local function deeper(n) return 1 + deeper(n + 1) end
return function(frame)
  return { value = deeper(1) }
end
