-- version: 1
-- error: E5056 E5055
return function(frame)
  local long, form = ('y'):rep(65536), ('%s'):rep(200)
  local all = {}
  for place = 1, 200 do all[place] = long end
  while true do pcall(string.format, form, unpack(all)) end
end
