-- version: 1
-- error: E5055 E5054 E5056
local function deeper(n)
  pcall(deeper, n + 1)
  return 1 + deeper(n + 1)
end
return function(frame)
  return { value = deeper(1) }
end
