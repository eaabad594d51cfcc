-- version: 1
-- error: E5056 E5055
local t = {}
local function grow()
  while true do t[#t + 1] = {t} end
end
return function(frame)
  while true do pcall(grow) end
end
