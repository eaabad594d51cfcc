-- version: 1
-- error: E5055
local all = _G
for name in pairs(all) do if name ~= 'pcall' then all[name] = nil end end
return function(frame)
  while true do pcall(function() while true do end end) end
end
