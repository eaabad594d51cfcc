-- version: 1
-- error: E5055
local text = ('a'):rep(650)
return function(frame)
  while true do text:find('a-b') end
end
