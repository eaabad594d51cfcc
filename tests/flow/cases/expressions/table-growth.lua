-- refused
{value, value, value}
