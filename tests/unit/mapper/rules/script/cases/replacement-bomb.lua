-- version: 1
-- error: E5056 E5055
return function(frame)
  local long = ('y'):rep(65536)
  while true do pcall(string.gsub, long, '.', long) end
end
